"""A module that scans selectively, for the operator's road through the compiler."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.surrogates.selective_scan import selective_scan


class SelectiveScan(nn.Module):
    """x + the sum of scans of the pixels of (B, C, H, W), both ways by turns.

    Args:
        channels: C.
        state: N, states per channel.
        directions: Scans.
        equal: One decay rate for all states of a channel; else multiples, as Mamba's are at the
            start (arXiv 2312.00752, section 3.6).
    """

    def __init__(
        self, channels: int, state: int = 1, directions: int = 1, equal: bool = False
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(channels + state)

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) * 0.5)

        self.state, self.equal = state, equal
        self.projections = nn.ParameterList(
            weight(channels + 2 * state, channels, 1, 1) for _ in range(directions)
        )
        self.log_rates, self.skip, self.bias = (
            weight(channels, 1),
            weight(channels),
            weight(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        multiples = torch.ones(self.state) if self.equal else torch.arange(1.0, self.state + 1)
        rates = -torch.exp(self.log_rates) * multiples
        y = x
        for index, weight in enumerate(self.projections):
            rows = F.conv2d(x, weight).flatten(2)
            steps, B, C = rows.split([x.shape[1], self.state, self.state], 1)
            u = x.flatten(2)
            scanned = selective_scan(
                u, steps, rates, B, C, self.skip, None, self.bias, True, bool(index % 2)
            )
            y = y + scanned.reshape(x.shape)
        return y
