"""Kernels that only copy runs: which runs, and that a network without them computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from tvm import tirx

from distillc.codegen.build.library import build_library
from distillc.codegen.build.moves import Move, find_moves
from distillc.codegen.build.plan import plan_network
from distillc.codegen.stages import compile_kernels
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target
from tests.c_api import Library
from tests.codegen.schedule.rules.kernels import Function, lower, random

HOST = get_target("host")
Images = Callable[..., torch.Tensor]
IMAGES = random(1, 6, 8, 16), random(1, 2, 8, 16)

CASES: dict[str, tuple[Images, tuple[Move, ...]]] = {
    "slice": (lambda x, _: x[:, 2:5], (Move(0, 256, 0, 384),)),
    "concatenation": (
        lambda x, y: torch.cat([x, y], 1),
        (Move(0, 0, 0, 768), Move(1, 0, 768, 256)),
    ),
    "three": (
        lambda x, y: torch.cat([x, y, x], 1),
        (Move(0, 0, 0, 768), Move(1, 0, 768, 256), Move(2, 0, 1024, 768)),
    ),
    "slice of rows": (lambda x, _: x[:, :, 2:5], ()),
    "other axis": (lambda x, y: torch.cat([x[:, :2], y], 2), ()),
    "every second": (lambda x, _: x[:, ::2], ()),
    "repeated": (lambda x, _: x[:, :1].expand(1, 3, 8, 16).contiguous(), ()),
    "turned": (lambda x, _: x.transpose(2, 3).contiguous(), ()),
    "computed": (lambda x, y: torch.cat([torch.sigmoid(x), y], 1), ()),
    "sum": (lambda x, _: x.sum(1), ()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_runs(name: str) -> None:
    function, expected = CASES[name]
    mod = lower(Function(function), *IMAGES)
    (func,) = (each for each in mod.functions.values() if isinstance(each, tirx.PrimFunc))
    assert find_moves(func) == expected


class Joined(nn.Module):
    """Parts that are convolved apart and together, and slices of the result."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 8, 3, padding=1)
        self.both = nn.Conv2d(12, 8, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.first(x)
        both = self.both(torch.cat([a, self.second(a)], 1))
        keys = both[:, 4:].reshape(2, 2, -1)
        weights = torch.softmax(keys @ keys.transpose(1, 2), -1)
        return self.last((weights @ keys).reshape(1, 4, *x.shape[2:]) + a)


@pytest.mark.parametrize(("size", "copies"), [((16, 16), 0), ((9, 11), 1)])
def test_nothing_is_copied_where_runs_are_aligned(
    size: tuple[int, int], copies: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, x = Joined().eval(), random(1, 3, *size)
    program = export_program(module, tuple(x.shape))
    plan = plan_network(compile_kernels(program, HOST, {}))
    assert sum("concat" in call.kernel for call in plan.calls) == copies
    build_library(program, HOST, tmp_path / "x.so")
    with torch.no_grad():
        expected = module(x).numpy()
    result = Library(tmp_path / "x.so", 1).run(x.numpy())
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
