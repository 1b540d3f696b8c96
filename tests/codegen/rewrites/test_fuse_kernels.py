"""FuseKernels: what is merged, what is left apart, and numbers equal to torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.rewrites.fuse_kernels import FuseKernels
from distillc.frontend.restormer import TransformerBlock
from tests.codegen.rewrites.graphs import graph, kernels, primitive
from tests.codegen.schedule.rules.kernels import (
    AVX512,
    SSE,
    Function,
    check,
    lower,
    random,
    rules_of,
)

Images = Callable[[torch.Tensor], torch.Tensor]
IMAGE = random(1, 8, 12, 20)


def norm(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(1, keepdim=True)


def conv(inputs: int, outputs: int | None = None) -> Images:
    weight = random(outputs or inputs, inputs, 1, 1)
    return lambda x: F.conv2d(x, weight)


def depthwise(channels: int = 8, bias: bool = False, size: int = 3) -> Images:
    weight, add = random(channels, 1, size, size), random(channels) if bias else None
    return lambda x: F.conv2d(x, weight, add, padding=size // 2, groups=channels)


def check_kernels(function: Images, count: int, x: torch.Tensor = IMAGE) -> None:
    """Assert the number of kernels, that none falls back, and the numbers."""
    module = Function(function)
    mod = lower(module, x)
    assert primitive(mod) == count
    rules = rules_of(mod, SSE).values()
    assert "schedule_fallback" not in rules
    check(module, x)


def gate(bias: bool) -> Images:
    window = depthwise(8, bias)

    def apply(x: torch.Tensor) -> torch.Tensor:
        first, second = window(x).chunk(2, 1)
        return F.gelu(first) * second

    return apply


P, D, B, G = conv(8), depthwise(), depthwise(8, True), conv(4, 6)
GATE, GATE_BIAS = gate(False), gate(True)

MERGED: dict[str, Images] = {
    "norm, product": lambda x: P(norm(x)),
    "norm, product, residual": lambda x: x + P(norm(x)),
    "softmax over channels, product": lambda x: P(x.softmax(1)),
    "depthwise, product": lambda x: P(D(x)),
    "depthwise with bias, product": lambda x: P(B(x)),
    "depthwise, norm, product": lambda x: P(norm(B(x))),
    "gate, product": lambda x: G(GATE(x)),
    "gate with bias, product": lambda x: G(GATE_BIAS(x)),
    "one tensor read twice": lambda x: P(norm(x) * norm(x)),
    "slice from the first channel, product": lambda x: G(x[:, :4]),
}


@pytest.mark.parametrize("name", MERGED)
def test_merged(name) -> None:
    check_kernels(MERGED[name], 1)


APART: dict[str, tuple[Images, int]] = {
    "norm before a window": (lambda x: B(norm(x)), 2),
    "two windows": (lambda x: P(B(D(x))), 2),
    "norm after a window, no product": (lambda x: norm(D(x)), 2),
    "window in a concatenation": (lambda x: torch.cat([D(x), x], 1), 2),
    "norm in a concatenation": (lambda x: torch.cat([norm(x), x], 1), 2),
    "norm that the residual reads": (lambda x: (lambda n: P(n) + n)(norm(x)), 2),
    "gate without a product": (GATE_BIAS, 2),
    "slice from a later channel, product": (lambda x: G(x[:, 4:]), 2),
}


@pytest.mark.parametrize("name", APART)
def test_apart(name) -> None:
    check_kernels(*APART[name])


DENSE = random(3, 2, 3, 3)
TEMPERATURE, SQUEEZE, EXCITE = random(2, 1, 1), conv(8, 2), conv(2, 8)


def channel_attention(x: torch.Tensor) -> torch.Tensor:
    q, k, v = (each.reshape(1, 2, 4, 96 * 96) for each in x.chunk(3, 1))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    scores = (q @ k.transpose(-2, -1)).reshape(2, 4, 4) * TEMPERATURE
    return P((scores.softmax(-1).reshape(1, 2, 4, 4) @ v).reshape(1, 8, 96, 96))


def gated(x: torch.Tensor) -> torch.Tensor:
    gate = EXCITE(F.gelu(SQUEEZE(x.mean((2, 3), keepdim=True))))
    return P(torch.sigmoid(gate) * x)


FEW: dict[str, tuple[Images, int, int]] = {
    # Two norms with roots and bounds; q kT and its scales; softmax; weights times softmax, turned;
    # the slice of values; the product.
    "channel attention": (channel_attention, 24, 7),
    # The mean; two products of vectors with their activations; the gate in the image's product.
    "gate of channels": (gated, 8, 3),
}


@pytest.mark.parametrize("name", FEW)
def test_few_numbers(name) -> None:
    function, channels, count = FEW[name]
    module, x = Function(function), random(1, channels, 96, 96)
    assert primitive(lower(module, x)) == count
    check(module, x)


SCORES, VALUES = random(1, 7, 7), random(1, 7, 35)
FEW_APART: dict[str, tuple[Images, torch.Tensor]] = {
    # The rule of products would look for rows of pixels in the softmax.
    "softmax, product": (lambda x: SCORES @ x.softmax(-1), random(1, 7, 7)),
    "product, softmax": (lambda x: (x @ SCORES).softmax(-1), random(1, 7, 7)),
    # A window's rule would be lost.
    "window, product": (
        lambda x: F.conv2d(x, DENSE, padding=1).flatten(2) @ VALUES.mT,
        random(1, 2, 5, 7),
    ),
}


@pytest.mark.parametrize("name", FEW_APART)
def test_few_numbers_that_stay_apart(name) -> None:
    function, x = FEW_APART[name]
    module = Function(function)
    assert primitive(lower(module, x)) == 2
    check(module, x)


@pytest.mark.parametrize(("width", "count"), [(8, 2), (16, 1)])
def test_a_product_keeps_its_vectors(width: int, count: int) -> None:
    module, x = Function(lambda x: P(D(x))), random(1, 8, 8, width)
    assert primitive(lower(module, x, target=AVX512)) == count
    check(module, x, target=AVX512)


def test_nothing_to_merge() -> None:
    before = kernels(graph(lambda x: P(x), IMAGE))
    tvm.ir.assert_structural_equal(FuseKernels(SSE)(before)["main"], before["main"])


def test_resampling_is_not_taken_apart() -> None:
    check_kernels(lambda x: P(F.interpolate(x, scale_factor=2)), 2)


@given(
    st.integers(1, 4), st.sampled_from([7, 8, 12]), st.sampled_from([(12, 20), (5, 7), (16, 16)]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=6, deadline=None)
def test_transformer_block(heads, channels, size, bias) -> None:

    torch.manual_seed(heads)
    block = TransformerBlock(channels * heads, heads, 2.66, bias, not bias)
    check(block.eval(), random(1, channels * heads, *size))


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2), (2, 2)])
def test_other_windows(stride, dilation) -> None:
    window = nn.Conv2d(
        8, 8, 3, stride, padding=dilation, dilation=dilation, groups=8, bias=dilation == 2
    )

    def gated(x: torch.Tensor) -> torch.Tensor:
        first, second = window(x).chunk(2, 1)
        return G(F.gelu(first) * second)

    check(Function(gated), IMAGE)
