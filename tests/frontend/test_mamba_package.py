"""Networks that import mamba_ssm run without it."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import distillc
from distillc.errors import PassError, UsageError
from distillc.frontend.mamba_package import Mamba, causal_conv1d
from distillc.passes import FindAttention, Trace
from tests.frontend.test_scans import by_loop

NETWORK = """
import torch
from torch import nn
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, selective_scan_ref
from mamba_ssm import Mamba

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.parts = nn.Conv2d(4, 8, 1)
        self.A_logs = nn.Parameter(torch.zeros(8, 2))
        self.mamba = Mamba(d_model=4, d_state=2)
        self.selective_scan = selective_scan_fn

    def forward(self, image):
        x = self.head(image)
        both = torch.stack([x.flatten(2), x.flatten(2).flip(-1)], 1)
        B, C = self.parts(x).flatten(2).unflatten(1, (2, 2, 2)).unbind(2)
        y = self.selective_scan(both.flatten(1, 2), both.flatten(1, 2).sigmoid(),
            -torch.exp(self.A_logs), B, C, None, z=None, delta_bias=None, delta_softplus=True,
            return_last_state=False).unflatten(1, (2, 4))
        x = x + (y[:, 0] + y[:, 1].flip(-1)).reshape(x.shape)
        tokens = x.flatten(2).transpose(1, 2)
        x = x + self.mamba(tokens).transpose(1, 2).reshape(x.shape)
        return image + self.tail(x)
"""


def test_a_network_that_imports_it_is_traced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "imports_mamba.py").write_text(NETWORK)
    weights = tmp_path / "net.pth"
    convolutions = {"head": nn.Conv2d(3, 4, 1), "tail": nn.Conv2d(4, 3, 1)}
    parts = nn.ModuleDict({**convolutions, "parts": nn.Conv2d(4, 8, 1), "mamba": Mamba(4, 2)})
    tensors = {**parts.state_dict(), "A_logs": torch.rand(8, 2)}
    torch.save(tensors, weights)
    with caplog.at_level(logging.WARNING):
        net = distillc.load(weights, arch=f"{tmp_path}/imports_mamba.py:Net")
    assert "mamba_ssm is not here with its CUDA part" in caplog.text
    if find_spec("mamba_ssm") is None:  # what was stood in for is ours already
        assert "is a selective scan" not in caplog.text
    with pytest.raises(PassError, match="holds 2 selective scans") as caught:
        FindAttention()(Trace()(net))
    assert "--no-distill" in str(caught.value.hint)


def test_a_copy_beside_the_network_is_taken(tmp_path: Path) -> None:
    """In a process of its own, since Python keeps what it imported."""
    (tmp_path / "mamba_ssm").mkdir()
    (tmp_path / "mamba_ssm" / "__init__.py").write_text("Mamba = 'their own'")
    (tmp_path / "user.py").write_text("from mamba_ssm import Mamba as Net")
    code = (
        "from distillc.frontend.user_code import import_class\n"
        f"assert import_class({str(tmp_path / 'user.py:Net')!r}) == 'their own'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_stood_in_for_is_named(tmp_path: Path) -> None:
    (tmp_path / "imports_more.py").write_text("from mamba_ssm.ops.triton.layernorm import RMSNorm")
    torch.save({"weight": torch.rand(1)}, tmp_path / "net.pth")
    with pytest.raises(UsageError, match="mamba_ssm"):
        distillc.load(tmp_path / "net.pth", arch=f"{tmp_path}/imports_more.py:Net")


def test_the_block_is_the_papers() -> None:
    torch.manual_seed(0)
    block, x = Mamba(4, d_state=3, d_conv=4, expand=2), torch.rand(2, 7, 4)
    assert {name: tuple(each.shape) for name, each in block.state_dict().items()} == {
        "A_log": (8, 3), "D": (8,), "in_proj.weight": (16, 4), "conv1d.weight": (8, 1, 4),
        "conv1d.bias": (8,), "x_proj.weight": (7, 8), "dt_proj.weight": (8, 1),
        "dt_proj.bias": (8,), "out_proj.weight": (4, 8),
    }  # fmt: skip
    with torch.no_grad():
        inner, gate = block.in_proj(x).chunk(2, -1)
        inner = F.silu(block.conv1d(inner.mT)[..., :7])
        low, B, C = block.x_proj(inner.mT).split([1, 3, 3], -1)
        delta = block.dt_proj(low).mT
        y = by_loop(
            inner,
            delta,
            -block.A_log.exp(),
            B.mT,
            C.mT,
            block.D,
            gate.mT,
            None,
            delta_softplus=True,
        )
        torch.testing.assert_close(block(x), block.out_proj(y.mT), atol=1e-5, rtol=1e-5)


def test_a_causal_convolution_sees_only_the_past() -> None:
    layer, x = nn.Conv1d(4, 4, 3, groups=4), torch.rand(1, 4, 9)
    with torch.no_grad():
        y = causal_conv1d(x, layer.weight[:, 0], layer.bias)
        torch.testing.assert_close(y[..., 2:], layer(x))
        assert torch.equal(causal_conv1d(x[..., :5], layer.weight[:, 0], layer.bias), y[..., :5])
        gated = causal_conv1d(x, layer.weight[:, 0], layer.bias, activation="silu")
    torch.testing.assert_close(gated, F.silu(y))
