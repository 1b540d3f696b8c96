"""Calls are found by reading sources."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.operator_calls import calls_of

SOURCE = """
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import einsum as e
from einops import rearrange

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.1))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        x = self.layers(x).permute(0, 2, 3, 1) @ x
        return torch.cat([F.gelu(x), e("bc->b", x)], 1), rearrange(x, "b c -> c b"), "a".split()

class BlockLoss(nn.Module):
    def forward(self, x):
        return torch.abs(x)

def plain(x):
    return torch.sin(x)
"""


def test_calls_of_networks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(SOURCE)
    (tmp_path / "copy.py").write_text(SOURCE)
    (tmp_path / "python2.py").write_text("print 1")
    once = ["nn.Conv2d", "x.permute", "x @ y", "torch.cat", "F.gelu", "torch.einsum"]
    assert calls_of(tmp_path) == dict.fromkeys([*once, "einops.rearrange"], 1)
