"""Writes at computed places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared

HOST = get_target("host")


def test_writes_of_one_number_where_a_mask_says_so() -> None:
    def clipped(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[y > 1] = 1
        y[y[:, :, 0] < 0] = -2
        return y

    assert "index_put" not in check_prepared(clipped, torch.randn(4, 5, 6))


def test_writes_where_a_mask_of_pixels_says_so() -> None:
    def marked(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[x[..., 0] > 0] = torch.arange(6.0)
        y[x[..., 1] > 0] = torch.arange(6.0)[None]
        return y

    assert "index_put" not in check_prepared(marked, torch.randn(4, 5, 6))


def test_writes_at_places_are_writes_into_the_flat_tensor() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        y, rows = x.clone(), x[:, 0, 0].argsort()
        y[rows] = x[:1]
        y[:, rows - 4, rows] = 2.0
        return y.scatter(2, x.argsort(2), x).scatter(1, x[:, :2].argsort(1), 3)

    found = check_prepared(written, torch.randn(4, 4, 20))
    assert found["index_put"] == 3
    assert not {"scatter", "index"} & set(found)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_few_writes_into_each_row(dim: int) -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        index = x.narrow(dim, 0, 2).abs().long() % 3
        one_hot = torch.zeros_like(x).scatter_(dim, index.narrow(dim, 0, 1), 1)
        return x.scatter(dim, index, x.narrow(dim, 1, 2) * 2) + one_hot

    assert "scatter" not in check_prepared(written, 3 * torch.randn(3, 4, 5))


@given(st.integers(1, 9), st.integers(-3, 9), st.integers(-3, 12), st.integers(1, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_some_rows_are_written(rows: int, start: int, end: int, step: int, last: bool) -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        if last:
            y[..., start:end:step] = x[..., start:end:step] + 1
        else:
            y[:, start:end:step] = x[:, start:end:step] + 1
        return y

    shape = (2, 3, rows) if last else (2, rows, 3)
    found = check_prepared(written, torch.rand(shape))
    assert "slice_scatter" not in found


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_sums_at_computed_places(dim: int) -> None:
    def summed(x: torch.Tensor) -> torch.Tensor:
        places = x.argsort(dim) % 2
        few = places.narrow(0, 0, 2)
        y = x.scatter_add(dim, places, x) + x.scatter_reduce(dim, few, x, "sum")
        y = y.index_add(dim, places.flatten()[: x.shape[dim]], x)
        return y.index_put((places[:, 0, 0], places[:, 0, 1]), x[0, 0, 0], accumulate=True)

    found = check_prepared(summed, torch.randn(3, 4, 5))
    assert not {"scatter_add", "index_add", "scatter_reduce"} & set(found)


def test_compiled_sums_at_computed_places() -> None:
    def histogram(x: torch.Tensor) -> torch.Tensor:
        bins = (x * 4).long().flatten(1)
        return torch.zeros(1, 4).scatter_add(1, bins, torch.ones_like(bins).float())

    check_compiled(histogram, torch.rand(1, 1, 8, 8), error=0)


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("dim", [0, 2])
def test_values_that_are_joined(reduce: str, include_self: bool, dim: int) -> None:
    """Several at one place, one, none; of fewer rows than there are."""

    def joined(x: torch.Tensor) -> torch.Tensor:
        index = (x[:, :2].abs() * 9).long() % x.shape[dim]
        return x.scatter_reduce(dim, index, x * 2 - 1, reduce, include_self=include_self)

    check_prepared(joined, torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("reduce", ["prod", "mean", "amax"])
def test_joined_values_are_compiled(reduce: str) -> None:
    def joined(x: torch.Tensor) -> torch.Tensor:
        index = (x[:, :, :5] * 7).long()
        y = x.scatter_reduce(2, index, x, reduce, include_self=False)
        y = y.index_reduce(2, torch.tensor([0, 3, 3]), x[:, :, :3], reduce)
        return y.scatter(3, index[..., :5], 0.5, reduce="multiply")

    check_compiled(joined, torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(0)))


def test_writes_values_in_the_order_of_a_mask_and_along_a_diagonal() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        y = torch.masked_scatter(x, x > 0, x.flip(-1) * 2)
        return torch.diagonal_scatter(y, x[:, 1:, 0] * 3, -1, 1, 2)

    check_compiled(lambda x: written(x[:, 1:]), torch.randn(2, 4, 3))
