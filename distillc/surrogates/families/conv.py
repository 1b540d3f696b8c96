"""The convolution-only baseline: what a surrogate does without any state space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.restormer import LayerNorm
from distillc.surrogates.branches import FEED_FORWARD, find_branches
from distillc.surrogates.family import Family
from distillc.surrogates.stand_in import StandIn


class ConvSurrogate(StandIn):
    """A gated depthwise convolution: x + W_out (gelu(a) * b),  a, b = dw3x3(W_in norm(x)).

    Args:
        channels: C of the input and output, (B, C, H, W) float32.
        whole_block: Whether it replaces a whole residual block (normalises and adds its input) or
            an attention module inside one (whose input comes normalised, whose sum stands outside).
        width: Channels of the gated branch, per cent of C.
    """

    def __init__(self, channels: int, whole_block: bool, width: int = 100) -> None:
        super().__init__()
        inner = max(1, channels * width // 100)
        wide = 2 * inner
        self.norm = LayerNorm(channels) if whole_block else None
        self.project_in = nn.Conv2d(channels, wide, 1, bias=False)
        self.dwconv = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.project_out = nn.Conv2d(inner, channels, 1)
        for name in ("dwconv.bias", "project_out.weight", "project_out.bias"):
            nn.init.zeros_(self.get_parameter(name))

    @torch.no_grad()
    def start_from(self, block: nn.Module) -> None:
        """Take the strongest channels of a block's own feed-forward, where it has one."""
        if self.norm is None:  # it replaces the attention
            return
        channels, inner = self.project_out.weight.shape[:2]
        found = find_branches(block, channels, FEED_FORWARD)
        if found is None or found.dwconv.shape[1:] != self.dwconv.weight.shape[1:]:
            return
        own = found.narrow(inner)
        kept = own.project_out.shape[1]
        values = range(inner, inner + kept)
        self.dwconv.weight[values] = 0  # without a gate in the block, values are one
        self.get_parameter("dwconv.bias")[values] = 1
        rows = [*range(kept), *values][: own.parts * kept]
        self.project_in.weight[rows] = own.project_in
        self.dwconv.weight[rows] = own.dwconv
        self.get_parameter("dwconv.bias")[rows] = own.bias
        self.project_out.weight[:, :kept] = own.project_out
        self.get_parameter("project_out.bias").copy_(own.out_bias)
        if own.norm is not None:
            take_norm(self.norm, block.get_submodule(own.norm))

    def forward(self, x: Tensor) -> Tensor:
        features = x if self.norm is None else self.norm(x)
        gate, value = self.dwconv(self.project_in(features)).chunk(2, 1)
        y = self.project_out(F.gelu(gate) * value)
        return y if self.norm is None else x + y


def take_norm(norm: LayerNorm, own: nn.Module) -> None:
    """Let a norm start as the block's own."""
    norm.get_parameter("body.weight").copy_(own.get_parameter("weight"))
    if own._parameters.get("bias") is not None:
        norm.get_parameter("body.bias").copy_(own.get_parameter("bias"))


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> ConvSurrogate:
    return ConvSurrogate(channels, whole_block, options["width"])


CONV = Family(
    name="conv",
    does="gated depthwise convolution, no state space",
    build=_build,
    defaults={"width": 100},
    limits={"width": 400},
    start=ConvSurrogate.start_from,
)
