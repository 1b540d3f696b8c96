"""FoldAffine: what is done to a convolution's channels is done to its weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm.script import ir as I
from tvm.script import relax as R

from distillc.codegen.rewrites.fold_affine import FoldAffine
from tests.codegen.rewrites.graphs import check_nothing, check_same, operators
from tests.codegen.schedule.rules.kernels import random

IMAGE = random(1, 6, 9, 10)
WEIGHT, VECTOR, BIAS, PIXELS = random(4, 6, 3, 3), random(4, 1, 1), random(4), random(7, 8)


def test_scale_and_shift() -> None:
    weight = np.arange(8, dtype="float32").reshape(2, 4, 1, 1)
    mean = np.array([1, 2], "float32").reshape(1, 2, 1, 1)
    scale = np.array([2, 4], "float32").reshape(1, 2, 1, 1)

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 3, 3), "float32")) -> R.Tensor((1, 2, 3, 3), "float32"):
            with R.dataflow():
                p = R.nn.conv2d(x, R.const(weight))
                q = R.subtract(p, R.const(mean))
                y = R.multiply(q, R.const(scale))
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(x: R.Tensor((1, 4, 3, 3), "float32")) -> R.Tensor((1, 2, 3, 3), "float32"):
            with R.dataflow():
                p = R.nn.conv2d(x, R.const(weight * scale.reshape(2, 1, 1, 1)))
                y = R.add(p, R.const(-mean * scale))
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(FoldAffine()(Before), After)


def trained(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Give a norm what training would."""
    for each in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(each, 0.5, 1.5)
    return norm


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm(groups: int, bias: bool) -> None:
    conv = nn.Conv2d(6, 12, 3, padding=1, groups=groups, bias=bias)
    module = nn.Sequential(conv, trained(nn.BatchNorm2d(12)), nn.GELU())
    after = operators(check_same(FoldAffine(), module, IMAGE))
    assert after["add"] == after["nn.conv2d"] == 1
    assert not any(after[name] for name in ("subtract", "multiply", "divide", "sqrt"))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2 * F.conv2d(x, WEIGHT),
        lambda x: 3 - F.conv2d(x, WEIGHT),
        lambda x: VECTOR * (F.conv2d(x, WEIGHT) + VECTOR) / (2 + VECTOR),
    ],
    ids=["number", "swapped", "vector"],
)
def test_other_arithmetic(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    after = operators(check_same(FoldAffine(), function, IMAGE))
    assert after["multiply"] == after["subtract"] == after["divide"] == 0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv2d(x, WEIGHT, BIAS),
        lambda x: F.relu(F.conv2d(x, WEIGHT)) * VECTOR,
        lambda x: F.conv2d(x, WEIGHT) * x.sum(),
        lambda x: (lambda y: y * VECTOR + y)(F.conv2d(x, WEIGHT)),
        lambda x: F.conv2d(x, WEIGHT) * PIXELS,
        lambda x: VECTOR / F.conv2d(x, WEIGHT),
    ],
    ids=["bias alone", "activation", "variable", "read twice", "by pixel", "quotient"],
)
def test_what_stays(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    check_nothing(FoldAffine(), function, IMAGE)
