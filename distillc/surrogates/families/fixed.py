"""Attention as a fixed map of its values, then a feed-forward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distillc.frontend.restormer import LayerNorm
from distillc.surrogates.branches import ATTENTION, find_branches
from distillc.surrogates.families.conv import ConvSurrogate
from distillc.surrogates.family import Family
from distillc.surrogates.stand_in import StandIn

_RIDGE = 1e-4  # of the mean energy of a value channel


class FixedSurrogate(StandIn):
    """y = x + M values,  y + feed-forward(y),  values = dw3x3(V norm(x)).

    A constant matrix instead of an attention's own (Hassid et al., arXiv 2211.03495, section 3), in
    one with the output projection, M. The feed-forward is the `conv` surrogate. In the place of an
    attention it is M values alone.

    Args:
        channels: C of the input and output, (B, C, H, W) float32.
        whole_block: As in `ConvSurrogate`.
        width: Channels of the feed-forward, per cent of C.
        values: Channels of the values, per cent of C.
    """

    def __init__(self, channels: int, whole_block: bool, width: int, values: int) -> None:
        super().__init__()
        inner = max(1, channels * values // 100)
        self.norm = LayerNorm(channels) if whole_block else None
        self.project_in = nn.Conv2d(channels, inner, 1, bias=False)
        self.dwconv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.project_out = nn.Conv2d(inner, channels, 1, bias=False)
        self.feed_forward = ConvSurrogate(channels, True, width) if whole_block else None
        nn.init.zeros_(self.project_out.weight)

    @torch.no_grad()
    def start_from(self, block: nn.Module) -> None:
        """Take the strongest of the block's own values, and its feed-forward as `conv` does."""
        inner, channels = self.project_in.weight.shape[:2]
        found = find_branches(block, channels, ATTENTION)
        if found is not None and found.dwconv.shape[1:] == self.dwconv.weight.shape[1:]:
            own = found.narrow(inner, ATTENTION - 1)
            kept = len(own.project_in)
            self.project_in.weight[:kept] = own.project_in
            self.dwconv.weight[:kept] = own.dwconv
            if self.norm is not None and own.norm is not None:
                self.norm.get_parameter("body.weight").copy_(own.norm)
        if self.feed_forward is not None:
            self.feed_forward.start_from(block)

    @torch.no_grad()
    def calibrate(self, given: Tensor, mixed: Tensor) -> None:
        """Fit M to what the attention returned, by least squares."""
        values = self.values(given if self.norm is None else self.norm(given))
        rows, wanted = (each.double().transpose(0, 1).flatten(1) for each in (values, mixed))
        gram = rows @ rows.T
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + torch.finfo(gram.dtype).tiny)
        fitted = torch.linalg.solve(gram, rows @ wanted.T).T
        self.project_out.weight.copy_(fitted[:, :, None, None])

    def values(self, features: Tensor) -> Tensor:
        """Return what M multiplies, (B, K, H, W) from the normalised input (B, C, H, W)."""
        values: Tensor = self.dwconv(self.project_in(features))
        return values

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.project_out(self.values(x if self.norm is None else self.norm(x)))
        if self.feed_forward is None:
            return mixed
        output: Tensor = self.feed_forward(x + mixed)
        return output


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> FixedSurrogate:
    return FixedSurrogate(channels, whole_block, options["width"], options["values"])


FIXED = Family(
    name="fixed",
    does="attention as a fixed map of its values, then a feed-forward",
    build=_build,
    defaults={"width": 100, "values": 100},
    limits={"width": 400, "values": 100},
    start=FixedSurrogate.start_from,
)
