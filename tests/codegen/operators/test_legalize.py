"""Operators that TVM's own form lacks or warns of."""

from __future__ import annotations

import pytest
import torch

from tests.codegen.schedule.rules.kernels import Function, check, random


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), 0.5])
def test_a_mask_of_any_value(value: float) -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, torch.full_like(x, value)).exp().clamp(max=9)

    check(Function(masked), random(1, 3, 4, 5))


def test_a_mask_made_of_whole_numbers() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        return x * torch.full((4, 5), 7, dtype=torch.int64)

    check(Function(masked), random(1, 3, 4, 5))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_rows_taken_at_computed_places(axis: int) -> None:
    def taken(x: torch.Tensor) -> torch.Tensor:
        places = (x.flatten()[:6].abs() * 3).to(torch.int64).clamp(0, 3)
        return x.index_select(axis, places)

    check(Function(taken), random(4, 5, 6))
