"""Masked writes become choices, sorts keep the order of equals; everything else stays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from distillc.frontend.programs import read_program
from distillc.frontend.static_form import StableSorts, is_dynamic, static_form
from distillc.frontend.trace import export_program
from tests.codegen.schedule.rules.kernels import Function

Map = Callable[[torch.Tensor], torch.Tensor]


def static(function: Map | nn.Module, x: torch.Tensor) -> torch.export.ExportedProgram:
    """Assert that a program has static sizes, computes the same, is saved and read; return it."""
    module = function if isinstance(function, nn.Module) else Function(function)
    program = export_program(module, tuple(x.shape))
    assert not any(map(is_dynamic, program.graph.nodes))
    assert not program.range_constraints
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.pt2"
        torch.export.save(program, path)
        read = read_program(path)
    with torch.no_grad():
        for each in (program, read):
            torch.testing.assert_close(each.module()(x), module(x), rtol=0, atol=0)
    return program


def test_what_one_mask_reads_and_writes() -> None:
    def hue(x: torch.Tensor) -> torch.Tensor:
        red, largest = x[:, 0], x.amax(1)
        y = torch.zeros_like(red)
        y[x[:, 0] == largest] = (4 + (x[:, 1] - x[:, 2])[x[:, 0] == largest]) % 6
        y[red < 0] = 2 * red[red < 0] / largest[red < 0]
        return y * 2

    program = static(hue, torch.randn(2, 3, 4, 5))
    names = [str(node.target) for node in program.graph.nodes]
    assert names.count("aten.where.self") == 2
    assert not any("index" in name for name in names)


def test_what_is_read_keeps_the_value_it_had() -> None:
    def swapped(x: torch.Tensor) -> torch.Tensor:
        y, z, positive = x.clone(), -x, x > 0
        kept = y[positive]
        y[positive] = z[positive]
        z[positive] = kept
        return y - 2 * z

    static(swapped, torch.randn(3, 4))


def test_a_mask_of_pixels_moves_all_channels() -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.randn(5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, bright = x * 2, x[..., 0] > 0
            y[bright] = x[bright] + self.bias
            return y

    static(Moved(), torch.randn(1, 3, 4, 5))


def test_the_number_of_a_weight() -> None:
    class Power(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor([0.2]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.abs() ** self.k.item()

    static(Power(), torch.randn(3))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x[x > 0].mean(),
        lambda x: x + torch.zeros_like(x).masked_scatter(x > 0, x[x > 1]),
        lambda x: x.index_put([x > 0], x[x > 0].cumsum(0)),
    ],
)
def test_what_has_no_static_size_stays(function: Map) -> None:
    program = export_program(Function(function), (4, 5))
    assert any(map(is_dynamic, program.graph.nodes))


@pytest.mark.parametrize("name", ["sort", "argsort"])
@pytest.mark.parametrize("descending", [False, True])
def test_equal_elements_stay_in_order(name: str, descending: bool) -> None:
    def order(x: torch.Tensor) -> torch.Tensor:
        found = getattr(torch, name)(x.round(), 1, descending)
        return x + (found.indices if name == "sort" else found)

    x = torch.randn(2, 4096)
    module = Function(order)
    wanted = x + x.round().sort(dim=1, descending=descending, stable=True).indices
    with torch.no_grad(), StableSorts():
        assert torch.equal(module(x), wanted)
    assert torch.equal(export_program(module, (2, 4096)).module()(x), wanted)


def test_a_static_program_is_left_alone() -> None:
    program = torch.export.export(nn.Conv2d(3, 3, 1), (torch.zeros(1, 3, 4, 4),))
    before = str(program.graph)
    assert static_form(program) is program
    assert str(program.graph) == before
