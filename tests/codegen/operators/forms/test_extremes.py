"""Extremes and their places."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared

HOST = get_target("host")


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("keepdim", [True, False])
def test_extremes_and_their_places(name: str, dim: int, keepdim: bool) -> None:
    def both(x: torch.Tensor) -> torch.Tensor:
        values, places = getattr(torch, name)(x, dim, keepdim)
        return values + getattr(torch, "arg" + name)(x, dim, keepdim) * 2 + places

    x = torch.randn(3, 4, 5).round()  # some are equal: the first counts
    found = check_prepared(both, x)
    assert not {"max", "min", "argmax", "argmin"} & set(found)


def test_place_of_the_largest_of_all() -> None:
    check_prepared(lambda x: x + x.argmax() + x.argmin(), torch.randn(3, 4))


@given(st.integers(1, 9), st.integers(-2, 1), st.booleans())
@settings(max_examples=6, deadline=None)
def test_products_along_an_axis(count: int, axis: int, keepdim: bool) -> None:
    shape = [3, 2]
    shape[axis] = count
    x = torch.rand(shape) + 0.5
    whole = torch.arange(x.numel()).reshape(shape) % 3 + 1
    check_compiled(lambda x: x.prod(axis, keepdim) + (whole + x.long()).prod(axis, keepdim), x)


def test_any_of_numbers_is_a_truth() -> None:
    """The largest number was taken for it."""

    def some(x: torch.Tensor) -> torch.Tensor:
        found = [x.any(-1), x.long().any(-1), (x > 0).any(-1), x.any().expand(1, 3, 4)]
        found += [(x > 0).max().expand(1, 3, 4), (x > -9).min().expand(1, 3, 4)]
        return torch.stack(found, -1) * 2.5

    x = torch.linspace(-3, 3, 96).reshape(1, 3, 4, 8)
    x[:, :, 1] = 0
    check_compiled(some, x, error=0)


def test_places_of_nan_and_of_the_smallest_whole_numbers() -> None:
    """A place behind the last one was read where nothing equalled the extreme."""

    def places(x: torch.Tensor) -> torch.Tensor:
        small = x.nan_to_num(0.0).abs().to(torch.uint8)
        found = [x.max(1)[1], x.min(1)[1], x.argmax(1), x.argmin(1), small.min(1)[1]]
        return torch.stack([*found, small.min(1)[0], small.prod(1)]) * 1.0

    x = torch.randn(3, 5) * 3
    x[0, 2], x[1] = math.nan, math.nan
    check_compiled(places, x)
    assert (x.nan_to_num(0.0).abs().to(torch.uint8).prod()).dtype == torch.int64


def test_product_of_all_is_counted_in_int64() -> None:
    check_compiled(lambda x: x.to(torch.uint8).prod() * 0.5 + x, torch.full((9,), 20.0))
