"""What libraries say stays off the terminal; what the user's code says does not."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from distillc.quiet import quiet_libraries

SWIN = '''
import torch
from torch import nn


class Block(nn.Module):
    """Windows with a position bias by `torch.meshgrid`, as Swin has it: without `indexing`."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.table = nn.Parameter(torch.zeros(7 * 7))
        places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4))).flatten(1)
        apart = places[:, :, None] - places[:, None] + 3
        self.register_buffer("index", apart[0] * 7 + apart[1])

    def forward(self, x):
        _, c, h, w = x.shape
        tokens = x.view(c, h // 4, 4, w // 4, 4).permute(1, 3, 2, 4, 0).reshape(-1, 16, c)
        q, k, v = self.qkv(tokens).chunk(3, -1)
        a = (q @ k.transpose(1, 2) + self.table[self.index]).softmax(-1) @ v
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w))
        a = a.view(h // 4, w // 4, 4, 4, c).permute(4, 0, 2, 1, 3).reshape(1, c, h, w)
        return x + a + (rows + columns) / 1000


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.block = Block()

    def forward(self, x):
        return x + self.block(self.head(x))[:, :3]
'''


def test_inspect_and_compile_of_a_swin_write_no_warning(tmp_path: Path) -> None:
    (tmp_path / "swin.py").write_text(SWIN)
    run = [sys.executable, "-c"]
    make = "import torch, swin; torch.save(swin.Swin().state_dict(), 'swin.pth')"
    done = subprocess.run([*run, make], cwd=tmp_path, capture_output=True, text=True)
    assert "meshgrid" in done.stderr  # torch does warn
    inspect = [sys.executable, "-m", "distillc.cli", "inspect", "swin.pth", "--arch"]
    compile_it = (
        "import distillc; net = distillc.load('swin.pth', arch='swin.py:Swin'); "
        "distillc.compile(net, 'host', (16, 16))"
    )
    for command in ([*inspect, "swin.py:Swin"], [*run, compile_it]):
        environment = {**os.environ, "PYTHONWARNINGS": "default::UserWarning"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""


def test_filters_and_levels_outside_are_untouched() -> None:
    logger = logging.getLogger("onnxscript")
    before = list(warnings.filters), logger.level
    with quiet_libraries():
        assert logger.level == logging.ERROR
    assert (list(warnings.filters), logger.level) == before


def test_the_users_own_warnings_are_shown() -> None:
    class Warning_(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            warnings.warn("mine", stacklevel=1)
            return x

    with pytest.warns(UserWarning, match="mine"), quiet_libraries():
        Warning_()(torch.zeros(1))


def test_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="inner"), quiet_libraries():
        raise RuntimeError("inner")
