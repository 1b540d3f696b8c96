"""Attention as Mamba-2's state without an order, then a feed-forward."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.restormer import LayerNorm
from distillc.surrogates.branches import ATTENTION, find_branches
from distillc.surrogates.families.conv import ConvSurrogate, take_norm
from distillc.surrogates.family import Family
from distillc.surrogates.stand_in import StandIn

_HEAD = 16  # channels of a head, where the block does not tell
_RIDGE = 1e-4  # of the mean energy of a value channel
_SAMPLED = 4  # every so many rows write to the state: of all of them, the state is hardly better


class SsdSurrogate(StandIn):
    """y = x + (M + R H) values,  y + feed-forward(y),  values = dw3x3(V norm(x)).

    H = sum_t a_t b_t^T is a state that all positions write to and all read: the dual form of
    Mamba-2 (arXiv 2405.21060, section 3) without decay and mask, as VSSD has it for images
    (arXiv 2407.18559, section 3). a and b start as an attention's queries and keys. As there
    (Restormer, section 3.1), each of their channels has norm one over all positions, so that H
    means the same at every size. The feed-forward is the `conv` surrogate. In the place of an
    attention it is (M + R H) values alone.

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
        self.dwconv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.project_out = nn.Conv2d(inner, channels, 1)
        self.write = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.read = nn.Conv2d(inner, channels, 1, bias=False)
        self._heads = inner // _HEAD if inner % _HEAD == 0 else 1
        self.feed_forward = ConvSurrogate(channels, True, width) if whole_block else None
        for name in ("dwconv.bias", "project_out.weight", "project_out.bias", "read.weight"):
            nn.init.zeros_(self.get_parameter(name))

    @torch.no_grad()
    def start_from(self, block: nn.Module) -> None:
        """Take the strongest of the block's own values, and its feed-forward as `conv` does."""
        inner, channels = self.project_in.weight.shape[:2]
        found = find_branches(block, channels, ATTENTION)
        if found is not None and found.dwconv.shape[1:] == self.dwconv.weight.shape[1:]:
            self._heads = math.gcd(inner, found.heads)
            own = found.narrow(inner, ATTENTION - 1, self._heads)
            kept = own.project_out.shape[1]
            queries, keys, values = (
                slice(part * kept, (part + 1) * kept) for part in range(ATTENTION)
            )
            self.project_in.weight[:kept] = own.project_in[values]
            self.dwconv.weight[:kept] = own.dwconv[values]
            self.get_parameter("dwconv.bias")[:kept] = own.bias[values]
            # What the depthwise convolution does to a flat image.
            write = own.project_in * own.dwconv.sum((2, 3), keepdim=True)
            self.write.weight[:kept] = write[queries]
            self.write.weight[inner : inner + kept] = write[keys]
            if self.norm is not None and own.norm is not None:
                take_norm(self.norm, block.get_submodule(own.norm))
        if self.feed_forward is not None:
            self.feed_forward.start_from(block)

    @torch.no_grad()
    def calibrate(self, given: Tensor, mixed: Tensor) -> None:
        """Fit M and R to what the attention returned, by least squares."""
        values = self.values(given)
        heads = values.flatten(2).unflatten(1, (self._heads, -1))
        read = (self.state(given) @ heads).reshape(values.shape)
        known = torch.cat([values, read], 1)
        known = torch.cat([known, torch.ones_like(known[:, :1])], 1)
        rows, wanted = (each.double().transpose(0, 1).flatten(1) for each in (known, mixed))
        gram = rows @ rows.T
        energy = gram.diagonal()[: values.shape[1]].mean()
        gram.diagonal().add_(_RIDGE * energy + torch.finfo(gram.dtype).tiny)
        fitted = torch.linalg.solve(gram, rows @ wanted.T).T[:, :, None, None]
        weights = fitted[:, :-1].chunk(2, 1)
        for layer, weight in zip((self.project_out, self.read), weights, strict=True):
            layer.weight.copy_(weight)
        self.get_parameter("project_out.bias").copy_(fitted[:, -1, 0, 0])

    def features(self, x: Tensor) -> Tensor:
        """Return the normalised input, (B, C, H, W)."""
        return x if self.norm is None else self.norm(x)

    def values(self, x: Tensor) -> Tensor:
        """Return what reads the state, (B, K, H, W) from the input."""
        values: Tensor = self.dwconv(self.project_in(self.features(x)))
        return values

    def state(self, x: Tensor) -> Tensor:
        """Return H, (B, heads, K / heads, K / heads) from the input, (B, C, H, W)."""
        # Normalised anew: the compiled code then has no other use for normalised pixels than the
        # product that follows, and does not store them.
        written = self.write(self.features(x[:, :, ::_SAMPLED]))
        written = written.flatten(2).unflatten(1, (2 * self._heads, -1))
        a, b = (F.normalize(each, dim=-1) for each in written.chunk(2, 1))
        return a @ b.transpose(-1, -2)

    def forward(self, x: Tensor) -> Tensor:
        values = self.values(x)
        read = self.read.weight.flatten(1).unflatten(1, (self._heads, -1)).transpose(0, 1)
        adaptive = (read @ self.state(x)).transpose(1, 2).flatten(2)
        matrix = self.project_out.weight.flatten(1) + adaptive
        if len(x) == 1:  # a convolution compiles to faster code
            mixed = F.conv2d(values, matrix[0, :, :, None, None], self.project_out.bias)
        else:
            # Pixels first: training has channels last, and copies nothing.
            pixels = values.movedim(1, -1).flatten(1, 2) @ matrix.mT
            mixed = (pixels + self.project_out.bias).mT.unflatten(2, x.shape[2:])
        if self.feed_forward is None:
            return mixed
        output: Tensor = self.feed_forward(x + mixed)
        return output


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> SsdSurrogate:
    return SsdSurrogate(channels, whole_block, options["width"], options["values"])


SSD = Family(
    name="ssd",
    does="attention as one state of the whole image that its values read, then a feed-forward",
    build=_build,
    defaults={"width": 100, "values": 100},
    limits={"width": 400, "values": 100},
    start=SsdSurrogate.start_from,
)
