"""What is found by sorting."""

from __future__ import annotations

import math

import pytest
import torch

from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared

HOST = get_target("host")


@pytest.mark.parametrize(("dim", "keepdim"), [(0, True), (1, False), (-1, True)])
def test_medians(dim: int, keepdim: bool) -> None:
    def middle(x: torch.Tensor) -> torch.Tensor:
        values, places = x.median(dim, keepdim)
        return values + places + x.median()

    assert not {"median"} & set(check_prepared(middle, torch.randn(3, 4, 5)))


def test_sorts_and_the_largest_along_any_axis() -> None:
    def sorted_(x: torch.Tensor) -> torch.Tensor:
        values, order = x.sort(dim=1, stable=True, descending=True)
        largest, places = x.topk(3, dim=0)
        return values + order + largest.sum() + places.sum() + x.topk(2, largest=False).values.sum()

    assert "topk" not in check_prepared(sorted_, torch.randn(4, 5, 6))


@pytest.mark.parametrize("keepdim", [True, False])
def test_numbers_by_their_rank(keepdim: bool) -> None:
    def ranked(x: torch.Tensor) -> torch.Tensor:
        values, places = x.kthvalue(3, 1, keepdim)
        return values + 2 * places + x.quantile(0.3, 1, keepdim)

    found = check_prepared(ranked, torch.randn(2, 5, 3))
    assert "kthvalue" not in found


def test_nan_is_the_largest() -> None:
    def ranked(x: torch.Tensor) -> torch.Tensor:
        up, down = x.sort(stable=True), x.sort(descending=True, stable=True)
        middle = [x.median(-1, keepdim=True)[0], x.nanmedian(-1, keepdim=True)[0]]
        return torch.cat([*up, *down, x.topk(2)[0], *middle], -1)

    x = torch.randn(4, 9)
    x[0, 3], x[1, ::2], x[2], x[3, 0] = math.nan, math.nan, math.nan, -math.inf
    check_compiled(ranked, x)


def test_medians_of_all_are_numbers() -> None:
    check_compiled(lambda x: x + x.median() + x.nanmedian(), torch.randn(3, 5))
