"""MergeProjection: projection times attention first, then one product over the pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import ir as I
from tvm.script import relax as R

from distillc.codegen.rewrites.merge_projection import MergeProjection
from tests.codegen.rewrites.graphs import check_nothing, check_same, operators
from tests.codegen.schedule.rules.kernels import random


def test_one_head() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            a: R.Tensor((1, 4, 4), "float32"),
            v: R.Tensor((1, 4, 30), "float32"),
            w: R.Tensor((6, 4, 1, 1), "float32"),
        ) -> R.Tensor((1, 6, 5, 6), "float32"):
            with R.dataflow():
                p = R.matmul(a, v)
                r = R.reshape(p, (1, 4, 5, 6))
                y = R.nn.conv2d(r, w)
                R.output(y)
            return y

    @I.ir_module
    class After:
        @R.function
        def main(
            a: R.Tensor((1, 4, 4), "float32"),
            v: R.Tensor((1, 4, 30), "float32"),
            w: R.Tensor((6, 4, 1, 1), "float32"),
        ) -> R.Tensor((1, 6, 5, 6), "float32"):
            with R.dataflow():
                h = R.reshape(w, (6, 1, 4))
                t = R.permute_dims(h, [1, 0, 2])
                b = R.reshape(a, (1, 4, 4))
                m = R.matmul(t, b)
                o = R.permute_dims(m, [1, 0, 2])
                n = R.reshape(o, (6, 4, 1, 1))
                r = R.reshape(v, (1, 4, 5, 6))
                y = R.nn.conv2d(r, n)
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(MergeProjection()(Before), After)


@given(
    st.integers(1, 4), st.integers(1, 7), st.integers(1, 9),
    st.sampled_from([(12, 20), (5, 7)]), st.booleans(),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_any_heads(heads, share, outputs, size, bias) -> None:
    conv = torch.nn.Conv2d(heads * share, outputs, 1, bias=bias)

    def project(a: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return conv((a @ v).reshape(1, heads * share, *size))

    pixels = size[0] * size[1]
    inputs = random(1, heads, share, share), random(1, heads, share, pixels)
    after = check_same(MergeProjection(), project, *inputs)
    assert operators(after)["matmul"] == 1


def test_what_serves_several_heads_stays() -> None:
    weight = random(4, 8, 1, 1)

    def project(a: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.conv2d((a @ v).reshape(1, 8, 5, 7), weight)

    for shapes in (((2, 4, 4), (1, 4, 35)), ((1, 4, 4), (2, 4, 35))):
        check_same(MergeProjection(), project, *(random(*shape) for shape in shapes))


def test_other_convolutions_stay() -> None:
    inputs = random(1, 4, 4), random(1, 4, 36)
    for shape, options in (
        ((4, 4, 1, 1), {"stride": 2}),
        ((4, 4, 1, 1), {"padding": 1}),
        ((4, 4, 3, 3), {"padding": 1}),
        ((4, 2, 1, 1), {"groups": 2}),
    ):
        weight = random(*shape)

        def project(a: torch.Tensor, v: torch.Tensor, w=weight, o=options) -> torch.Tensor:
            return F.conv2d((a @ v).reshape(1, 4, 6, 6), w, **o)

        check_nothing(MergeProjection(), project, *inputs)


def test_more_channels_than_pixels_and_a_transposition_stay() -> None:
    weight = random(4, 8, 1, 1)
    check_nothing(
        MergeProjection(),
        lambda a, v: F.conv2d((a @ v).reshape(1, 8, 2, 2), weight),
        random(8, 8),
        random(8, 4),
    )
    check_nothing(
        MergeProjection(),
        lambda a, v: F.conv2d((a @ v).transpose(0, 1).reshape(1, 8, 3, 4), weight),
        random(8, 8),
        random(8, 12),
    )
