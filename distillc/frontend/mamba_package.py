"""The parts of mamba_ssm and causal_conv1d that networks import, where these cannot run.

They are CUDA packages. What is here computes the same by our operator, on any device.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.scans import scan

log = logging.getLogger(__name__)


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None
) -> Tensor:
    """Convolve each channel with its past.

    Args:
        x: (B, D, L).
        weight: (D, K).
        bias: (D,).
        activation: None, or `"silu"` (also `"swish"`) after it.
    """
    padded = F.pad(x, (weight.shape[1] - 1, 0))
    y = F.conv1d(padded, weight[:, None], bias, groups=x.shape[1])
    return y if activation is None else F.silu(y)


class Mamba(nn.Module):
    """The block of "Mamba" (arXiv 2312.00752, section 3.4), with the names of mamba_ssm's weights.

    Args:
        d_model: Channels C of what it takes and returns.
        d_state: Size N of the state of a channel.
        d_conv: Taps of its convolution.
        expand: Inner channels for each of C.
        dt_rank: Rank of the step sizes; `"auto"` is a sixteenth of C.
        conv_bias: Whether the convolution has a bias.
        bias: Whether the projections have one.
        others: How its weights start, which file, device and layer it is of; not needed here.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        conv_bias: bool = True,
        bias: bool = False,
        **others: Any,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        rank = math.ceil(d_model / 16) if isinstance(dt_rank, str) else dt_rank
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias
        )
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        rates = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(rates.log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def forward(self, hidden_states: Tensor, inference_params: None = None) -> Tensor:
        """Map (B, L, C) to the same."""
        x, z = self.in_proj(hidden_states).mT.chunk(2, 1)
        x = causal_conv1d(x, self.conv1d.weight[:, 0], self.conv1d.bias, "silu")
        states = self.A_log.shape[1]
        parts = [self.dt_proj.in_features, states, states]
        delta, B, C = self.x_proj(x.mT).mT.split(parts, 1)
        delta = self.dt_proj.weight @ delta
        y = scan(
            x, delta, -self.A_log.exp(), B, C, self.D, z, self.dt_proj.bias, delta_softplus=True
        )
        mapped: Tensor = self.out_proj(y.mT)
        return mapped


CONTENT: dict[str, dict[str, Any]] = {
    "mamba_ssm": {"Mamba": Mamba, "selective_scan_fn": scan},
    "mamba_ssm.ops": {},
    "mamba_ssm.ops.selective_scan_interface": {
        "selective_scan_fn": scan,
        "selective_scan_ref": scan,
    },
    "mamba_ssm.modules": {},
    "mamba_ssm.modules.mamba_simple": {"Mamba": Mamba},
    "causal_conv1d": {"causal_conv1d_fn": causal_conv1d},
}


CUDA_PARTS = {"mamba_ssm": "selective_scan_cuda", "causal_conv1d": "causal_conv1d_cuda"}
"""What the packages of these names cannot be imported without."""


class _StandIns(MetaPathFinder, Loader):
    """Finds what is not installed, or installed without its CUDA part; never what is the user's."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, inside = name.partition(".")
        if inside:
            ours = getattr(sys.modules[package], "__loader__", None) is self
        else:
            ours = package in CUDA_PARTS and not _can_run(package)
        return ModuleSpec(name, self, is_package=True) if ours and name in CONTENT else None

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(CONTENT[module.__name__])
        if "." not in module.__name__:
            log.warning(
                "%s is not here with its CUDA part: distillc's own operator computes the same",
                module.__name__,
            )


def _can_run(package: str) -> bool:
    found = PathFinder.find_spec(package)
    if found is None:
        return False
    installed = "site-packages" in str(found.origin)
    return not installed or PathFinder.find_spec(CUDA_PARTS[package]) is not None


_FINDER = _StandIns()


def stand_in() -> None:
    """Let code import mamba_ssm and causal_conv1d where they cannot run."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
