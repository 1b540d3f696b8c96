"""Attention as Mamba-2 scans of its values along the axes and one state, then a feed-forward."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.surrogates.axial_scan import DIRECTIONS, axial_scan
from distillc.surrogates.families.ssd import SsdSurrogate
from distillc.surrogates.family import Family

_HEAD = 16  # most channels of a head: the kernels are fastest with so many


class MambaSurrogate(SsdSurrogate):
    """y = x + (M + R H) scan(values),  y + feed-forward(y),  values = dw3x3(V norm(x)).

    H is the state of `ssd`. The scan is Mamba-2's recurrence (arXiv 2405.21060, section 7), each
    quarter of its heads in a direction of its own, with step sizes, B and C from the normalised
    input. C starts at zero and the scan's skip at one, so that it starts as `ssd`.

    Args:
        channels: C of the input and output, (B, C, H, W) float32.
        whole_block: As in `ConvSurrogate`.
        width: Channels of the feed-forward, per cent of C.
        values: Channels of the values, per cent of C.
        state: N, states per channel.
    """

    def __init__(
        self, channels: int, whole_block: bool, width: int, values: int, state: int
    ) -> None:
        super().__init__(channels, whole_block, width, values)
        inner = self.project_in.out_channels
        directions = math.gcd(inner, len(DIRECTIONS))
        share = inner // directions  # channels of a direction
        size = next(size for size in range(_HEAD, 0, -1) if share % size == 0)
        heads = inner // size
        self.directions = ",".join(DIRECTIONS[:directions])
        self.sizes = [heads, state, state]
        self.project_scan = nn.Conv2d(channels, sum(self.sizes), 1, bias=False)
        nn.init.zeros_(self.project_scan.weight[-state:])
        # Step sizes start log-uniform in [0.001, 0.1] (Mamba, arXiv 2312.00752, section 3.6); the
        # bias is their inverse softplus. B starts at one.
        start = torch.exp(torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)))
        steps = start + torch.log(-torch.expm1(-start))
        self.scan_bias = nn.Parameter(torch.cat([steps, torch.ones(state), torch.zeros(state)]))
        self.log_rates = nn.Parameter(torch.zeros(heads))
        self.skip = nn.Parameter(torch.ones(inner))

    def values(self, x: Tensor) -> Tensor:
        values, delta, into, out = self._project(self.features(x))
        bias, into_bias, out_bias = self.scan_bias.split(self.sizes)
        # The state must not lose precision under autocast.
        scanned: Tensor = axial_scan(
            self.dwconv(values).float(),
            delta.float(),
            -torch.exp(self.log_rates),
            (into + into_bias[:, None, None])[:, None].float(),
            (out + out_bias[:, None, None])[:, None].float(),
            self.skip,
            bias,
            self.directions,
        )
        return scanned

    def _project(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return values, step sizes, B and C, all (B, ., H, W), without biases."""
        values, scan = self.project_in.weight, self.project_scan.weight
        if self.training:  # channels innermost: rows of a product of their own are not copied
            rows = F.linear(features.permute(0, 2, 3, 1), scan[:, :, 0, 0]).permute(0, 3, 1, 2)
            return self.project_in(features), *rows.split(self.sizes, 1)
        return F.conv2d(features, torch.cat([values, scan])).split([len(values), *self.sizes], 1)


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> MambaSurrogate:
    return MambaSurrogate(
        channels, whole_block, options["width"], options["values"], options["state"]
    )


MAMBA = Family(
    name="mamba",
    does="`ssd` with scans of its values along the axes",
    build=_build,
    defaults={"width": 100, "values": 100, "state": 1},
    limits={"width": 400, "values": 100, "state": 16},
    start=MambaSurrogate.start_from,
)
