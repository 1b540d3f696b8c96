"""MergePixelSums: height and width are summed over as one axis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from distillc.codegen.rewrites.merge_pixel_sums import MergePixelSums
from tests.codegen.rewrites.graphs import check_nothing, check_same
from tests.codegen.schedule.rules.kernels import SSE, Function, lower, random, rules_of

IMAGE = random(1, 6, 9, 10)


def test_mean_of_an_image() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 6, 9, 10), "float32")) -> R.Tensor((1, 6, 1, 1), "float32"):
            with R.dataflow():
                y = R.mean(x, [-1, -2], keepdims=True)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 6, 9, 10), "float32")) -> R.Tensor((1, 6, 1, 1), "float32"):
            with R.dataflow():
                r = R.reshape(x, (1, 6, 90))
                m = R.mean(r, [2])
                y = R.reshape(m, (1, 6, 1, 1))
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(MergePixelSums()(Before), After)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum((2, 3)),
        lambda x: x.sum((1, 2, 3), keepdim=True),
        lambda x: x.mean((-1, -2), keepdim=True),
    ],
)
def test_numbers(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    check_same(MergePixelSums(), function, IMAGE)


@pytest.mark.parametrize(
    "function", [lambda x: x.mean(3), lambda x: x.mean((1, 2)), lambda x: x.mean((1, 3))]
)
def test_what_stays(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    check_nothing(MergePixelSums(), function, IMAGE)


def test_its_kernel_sums_rows() -> None:
    mod = lower(Function(lambda x: x.mean((2, 3), keepdim=True)), IMAGE)
    assert set(rules_of(mod, SSE).values()) == {"schedule_row_reduction"}
