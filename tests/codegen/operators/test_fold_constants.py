"""What does not depend on the image is computed before import."""

from __future__ import annotations

import torch
from torch import nn

from distillc.codegen.operators.prepare import decompose, prepare
from tests.codegen.operators.programs import check_prepared


class Biased(nn.Module):
    """A position table through layers of its own, one of them without channels."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.table = nn.Sequential(nn.Linear(2, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, 8))
        grid = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij"), -1)
        self.register_buffer("grid", grid.flatten(0, 1))
        self.register_buffer("index", torch.arange(16) % 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.table(self.grid)[self.index].reshape(4, 4, 8).permute(2, 0, 1)
        return x + bias


def test_a_position_table_is_one_constant() -> None:
    assert set(check_prepared(Biased(4), torch.randn(1, 8, 4, 4))) == {"add"}
    assert set(check_prepared(Biased(0), torch.randn(1, 8, 4, 4))) == {"add"}


def test_a_mask_of_the_size() -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(1, 1, *x.shape[2:])
        mask[:, :, :2] = 1
        return torch.where(mask.expand_as(x) > 0, x, -x)

    found = check_prepared(shifted, torch.randn(1, 3, 6, 6))
    assert set(found) <= {"where", "neg", "expand"}


def test_what_only_a_check_looks_at_is_dropped() -> None:
    def shifted(x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(4, 4)
        mask[-2:0] = 1  # nothing: the slice is empty
        return x + mask.to(x.dtype)

    assert set(check_prepared(shifted, torch.randn(4, 4))) == {"add", "full"}  # the zeros


def test_what_repeats_is_not_stored() -> None:
    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.randn(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + (self.row * 2).expand(64, 64, 8).mT

    module = Repeats()
    program = torch.export.export(module, (torch.randn(64, 8, 64),))
    stored = prepare(decompose(program)).constants
    assert [each.numel() for each in stored.values()] == [8]
    check_prepared(module, torch.randn(64, 8, 64))


def test_a_network_without_weights_or_with_them_alone() -> None:
    assert set(check_prepared(lambda x: x.relu(), torch.randn(3))) == {"relu"}
    check_prepared(lambda x: x * torch.arange(3.0).exp(), torch.randn(3))


def test_random_numbers_stay() -> None:
    program = torch.export.export(_Noisy(), (torch.zeros(3),))
    prepared = prepare(decompose(program))
    assert any("rand" in str(node.target) for node in prepared.graph.nodes)


class _Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(3)
