"""DeferScales: a small product is divided instead of its long rows."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

from distillc.codegen.rewrites.defer_scales import DeferScales
from tests.codegen.rewrites.graphs import calls, check_nothing, check_same
from tests.codegen.schedule.rules.kernels import random


def divided(mod: tvm.IRModule) -> list[tuple[int, ...]]:
    """Return the shapes of the quotients."""
    quotients = [call for call in calls(mod) if call.op.name == "relax.divide"]
    return [tuple(map(int, call.ty.shape)) for call in quotients]


def test_division_through_a_reshape() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            q: R.Tensor((6, 40), "float32"),
            s: R.Tensor((6, 1), "float32"),
            k: R.Tensor((2, 40, 3), "float32"),
        ) -> R.Tensor((2, 3, 3), "float32"):
            with R.dataflow():
                n = R.divide(q, s)
                r = R.reshape(n, (2, 3, 40))
                y = R.matmul(r, k)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(
            q: R.Tensor((6, 40), "float32"),
            s: R.Tensor((6, 1), "float32"),
            k: R.Tensor((2, 40, 3), "float32"),
        ) -> R.Tensor((2, 3, 3), "float32"):
            with R.dataflow():
                r = R.reshape(q, (2, 3, 40))
                t = R.reshape(s, (2, 3, 1))
                p = R.matmul(r, k)
                y = R.divide(p, t)
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(DeferScales()(Before), After)


@given(st.integers(1, 4), st.integers(1, 7), st.sampled_from([(12, 20), (5, 7), (16, 16)]))
@settings(max_examples=6, deadline=None)
def test_channel_attention(heads, channels, size) -> None:
    pixels = size[0] * size[1]

    def attention(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        q, k = (F.normalize(x.reshape(1, heads, channels, pixels), dim=-1) for x in (q, k))
        return q @ k.transpose(-2, -1)

    image = (1, heads * channels, *size)
    after = check_same(DeferScales(), attention, random(*image), random(*image) + 1)
    assert {prod(shape) for shape in divided(after)} == {heads * channels**2}


def test_division_of_images() -> None:
    def attention(q: torch.Tensor, k: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        q = (q / s).reshape(2, 3, 80)
        return q @ (k / s).reshape(2, 3, 8, 10).permute(0, 2, 3, 1).reshape(2, 80, 3)

    image = random(1, 6, 8, 10)
    after = check_same(DeferScales(), attention, image, image, random(1, 6, 1, 1).abs() + 1)
    assert divided(after) == [(2, 3, 3)] * 2


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 8, 1), (1, 1, 1), (2, 8, 1)])
def test_number_that_serves_several_rows(shape) -> None:
    def product(q: torch.Tensor, k: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (q / s).reshape(1, 16, 240) @ k.reshape(1, 16, 240).transpose(1, 2)

    check_same(DeferScales(), product, random(2, 8, 240), random(2, 8, 240), random(*shape) + 9)


def test_divisor_along_the_sum_stays() -> None:
    inputs = random(2, 8, 240), random(2, 240, 8), random(1, 1, 240) + 9
    check_nothing(DeferScales(), lambda q, k, s: (q / s) @ k, *inputs)


def test_scalars_and_lower_ranks_stay() -> None:
    inputs = random(2, 8, 240), random(2, 240, 8), random(8, 1) + 9
    check_nothing(DeferScales(), lambda q, k, s: (q / 3.0) @ k, *inputs)
    check_nothing(DeferScales(), lambda q, k, s: (q / s) @ k, *inputs)


def test_large_product_stays() -> None:
    inputs = random(40, 3), random(3, 40), random(40, 1) + 9
    check_nothing(DeferScales(), lambda q, k, s: (q / s) @ k, *inputs)


def test_vectors_stay() -> None:
    check_same(DeferScales(), lambda q, k, s: (q / s) @ (k / s), *3 * [random(240) + 9])


def test_quotient_that_is_also_read_elsewhere() -> None:
    def both(q: torch.Tensor, k: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        n = q / s
        return (n @ k).sum() + n

    check_same(DeferScales(), both, random(8, 240), random(240, 8), random(8, 1) + 9)
