"""SliceSplits: parts of a split are slices, and slices of depthwise convolutions come first."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm.script import ir as I
from tvm.script import relax as R

from distillc.codegen.rewrites.slice_splits import SliceSplits
from tests.codegen.rewrites.graphs import check_nothing, check_same, operators
from tests.codegen.schedule.rules.kernels import random


def test_parts_of_a_convolution_with_a_bias() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 4, 6, 5), "float32"),
            w: R.Tensor((4, 1, 3, 3), "float32"),
            b: R.Tensor((1, 4, 1, 1), "float32"),
        ) -> R.Tensor((1, 2, 6, 5), "float32"):
            with R.dataflow():
                y = R.nn.conv2d(x, w, padding=(1, 1, 1, 1), groups=4)
                z = R.add(y, b)
                s = R.split(z, 2, axis=1)
                p = s[0]
                q = s[1]
                r = R.multiply(p, q)
                R.output(r)
            return r

    @I.ir_module
    class After:
        @R.function
        def main(
            x: R.Tensor((1, 4, 6, 5), "float32"),
            w: R.Tensor((4, 1, 3, 3), "float32"),
            b: R.Tensor((1, 4, 1, 1), "float32"),
        ) -> R.Tensor((1, 2, 6, 5), "float32"):
            with R.dataflow():
                x0 = R.strided_slice(x, [1], [0], [2], assume_inbound=True)
                w0 = R.strided_slice(w, [0], [0], [2], assume_inbound=True)
                y0 = R.nn.conv2d(x0, w0, padding=(1, 1, 1, 1), groups=2)
                b0 = R.strided_slice(b, [1], [0], [2], assume_inbound=True)
                p = R.add(y0, b0)
                x1 = R.strided_slice(x, [1], [2], [4], assume_inbound=True)
                w1 = R.strided_slice(w, [0], [2], [4], assume_inbound=True)
                y1 = R.nn.conv2d(x1, w1, padding=(1, 1, 1, 1), groups=2)
                b1 = R.strided_slice(b, [1], [2], [4], assume_inbound=True)
                q = R.add(y1, b1)
                r = R.multiply(p, q)
                R.output(r)
            return r

    tvm.ir.assert_structural_equal(SliceSplits()(Before), After)


def test_nothing_to_split() -> None:
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    check_nothing(SliceSplits(), lambda x: F.gelu(conv(x)), random(1, 6, 12, 20))


def test_slices_that_a_user_wrote() -> None:
    conv = nn.Conv2d(7, 7, 3, padding=1, groups=7)
    after = check_same(
        SliceSplits(), lambda x: conv(x)[:, :3] * conv.weight.sum() + 1, random(1, 7, 12, 20)
    )
    assert operators(after)["strided_slice"] == 3  # of image, weight and bias

    def halves(x: torch.Tensor) -> torch.Tensor:
        y = conv(x)
        return y[:, :3] * y[:, -3:]

    assert operators(check_same(SliceSplits(), halves, random(1, 7, 12, 20)))["nn.conv2d"] == 2


def overlap(y: torch.Tensor) -> torch.Tensor:
    return y[:, :4] * y[:, 2:]


def whole(y: torch.Tensor) -> torch.Tensor:
    return torch.cat([y[:, :3], y], 1)


def stepped(y: torch.Tensor) -> torch.Tensor:
    return y[:, ::2] * y[:, 1::2]


@pytest.mark.parametrize("reader", [overlap, whole, stepped])
@pytest.mark.parametrize("bias", [False, True])
def test_no_channel_is_computed_twice(reader, bias) -> None:
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=bias)
    after = check_same(SliceSplits(), lambda x: reader(conv(x)), random(1, 6, 12, 20))
    assert operators(after)["nn.conv2d"] == 1


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -3])
def test_every_axis(axis) -> None:
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6)

    def parts(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part * 2 for part in conv(x).split(2, axis)], axis)

    after = check_same(SliceSplits(), parts, random(1, 6, 5, 7))
    assert operators(after)["split"] == 0
    assert operators(after)["nn.conv2d"] == (3 if axis in (1, -3) else 1)


@given(
    st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 2]), st.sampled_from([1, 2]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_any_convolution(channels, parts, stride, dilation, bias) -> None:
    conv = nn.Conv2d(
        channels, channels, 3, stride, dilation, dilation=dilation, groups=channels, bias=bias
    )

    def split(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part + 1 for part in reversed(conv(x).chunk(parts, 1))], 1)

    check_same(SliceSplits(), split, random(1, channels, 12, 20))


def test_grouped_and_multiplied_channels_stay() -> None:
    for groups in (3, 6):
        weight = random(12, 6 // groups, 3, 3)

        def gate(x: torch.Tensor, weight=weight, groups=groups) -> torch.Tensor:
            first, second = F.conv2d(x, weight, padding=1, groups=groups).chunk(2, 1)
            return first * second

        after = check_same(SliceSplits(), gate, random(1, 6, 5, 7))
        assert operators(after)["nn.conv2d"] == 1
