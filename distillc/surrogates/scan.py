"""Selective-scan surrogates: Mamba blocks (arXiv 2312.00752, section 3.4) over image rows.

Scanned along rows, pixels lie in memory as the recurrence reads them, and the reverse direction is
only an index; columns cost a transposition, so the cheap families leave them out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.restormer import LayerNorm
from distillc.surrogates.selective_scan import selective_scan
from distillc.surrogates.stand_in import StandIn


class ScanDirection(nn.Module):
    """One selective scan over the pixels of (B, D, H, W), with step sizes, B and C from its input.

    Args:
        channels: D, the channels scanned.
        state: N, states per channel.
        reverse: From the last pixel to the first.
        columns: Along columns instead of rows.
        head: Channels that share one step size and one decay rate for all states (Mamba-2's scalar
            A per head, arXiv 2405.21060, section 7); None gives every channel a step size and a
            rate, whose multiples its states have, as Mamba's have at the start (section 3.6):
            one exponential then serves all states.
    """

    def __init__(
        self, channels: int, state: int, reverse: bool, columns: bool, head: int | None = None
    ) -> None:
        super().__init__()
        self.state = state
        self.reverse = reverse
        self.columns = columns
        self.head = head
        steps = channels // head if head else channels
        rank = steps if head else max(1, channels // 16)
        self.rank = rank
        self.project = nn.Conv2d(channels, rank + 2 * state, 1, bias=False)
        self.project_steps = None if head else nn.Conv2d(rank, channels, 1, bias=False)
        # Step sizes start log-uniform in [0.001, 0.1] (Mamba, section 3.6); the bias is its
        # inverse softplus.
        start = torch.exp(torch.empty(steps).uniform_(math.log(1e-3), math.log(1e-1)))
        self.delta_bias = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        self.log_rates = nn.Parameter(torch.zeros(steps, 1))
        self.skip = nn.Parameter(torch.ones(channels))

    def forward(self, u: Tensor) -> Tensor:
        if self.columns:
            u = u.transpose(2, 3).contiguous()
        shape = u.shape
        steps, B, C = self.project(u).split([self.rank, self.state, self.state], 1)
        if self.project_steps is not None:
            steps = self.project_steps(steps)
        bias: Tensor = self.delta_bias
        rates = -torch.exp(self.log_rates)
        if self.head:
            steps = steps.repeat_interleave(self.head, 1)
            bias = bias.repeat_interleave(self.head)
            rates = rates.repeat_interleave(self.head, 0).expand(-1, self.state)
        else:
            rates = rates * torch.arange(1, self.state + 1, device=rates.device)
        # The state must not lose precision under autocast.
        y = selective_scan(
            u.flatten(2).float(),
            steps.flatten(2).float(),
            rates,
            B.flatten(2).float(),
            C.flatten(2).float(),
            self.skip,
            None,
            bias,
            True,
            self.reverse,
        ).reshape(shape)
        return y.transpose(2, 3) if self.columns else y


class ScanSurrogate(StandIn):
    """x + W_out (silu(z) * sum of scans of silu(dw3x3(u))),  u, z = W_in norm(x).

    Args:
        channels: C of the input and output, (B, C, H, W) float32.
        whole_block: As in `ConvSurrogate`.
        directions: 1 scans rows, 2 rows both ways, 4 rows and columns both ways (SS2D of VMamba,
            arXiv 2401.10166, section 4).
        state: N, states per channel.
        expansion: Channels scanned / C.
        head: As in `ScanDirection`.
    """

    def __init__(
        self,
        channels: int,
        whole_block: bool,
        directions: int,
        state: int,
        expansion: int,
        head: int | None = None,
    ) -> None:
        super().__init__()
        inner = channels * expansion
        self.norm = LayerNorm(channels) if whole_block else None
        self.project_in = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.dwconv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.directions = nn.ModuleList(
            ScanDirection(inner, state, reverse=bool(index % 2), columns=index >= 2, head=head)
            for index in range(directions)
        )
        self.project_out = nn.Conv2d(inner, channels, 1, bias=False)
        nn.init.zeros_(self.project_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        features = x if self.norm is None else self.norm(x)
        u, z = self.project_in(features).chunk(2, 1)
        u = F.silu(self.dwconv(u))
        scanned = [direction(u) for direction in self.directions]
        y = scanned[0]
        for each in scanned[1:]:
            y = y + each
        y = self.project_out(y * F.silu(z))
        return y if self.norm is None else x + y
