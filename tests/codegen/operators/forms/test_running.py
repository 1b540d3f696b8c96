"""Running sums, products and extremes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared

HOST = get_target("host")


@given(
    st.lists(st.integers(1, 4), max_size=2),
    st.integers(1, 70),
    st.integers(0, 2),
    st.sampled_from([torch.float32, torch.int64, torch.bool]),
)
@settings(max_examples=20, deadline=None)
def test_running_sums(others: list[int], count: int, axis: int, dtype: torch.dtype) -> None:
    axis = min(axis, len(others))
    shape = [*others[:axis], count, *others[axis:]]
    kept = torch.randint(0, 2, shape).to(dtype)

    def summed(x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(axis) + (kept * (x > 0)).to(dtype).cumsum(axis)

    assert "cumsum" not in check_prepared(summed, torch.randn(shape))


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (3, 33), (70,)])
@pytest.mark.parametrize("axis", [0, -1])
def test_running_products(shape: tuple[int, ...], axis: int) -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        return x.sigmoid().cumprod(axis) + (x > -1).cumprod(axis)

    assert "cumprod" not in check_prepared(product, torch.randn(shape))


@pytest.mark.parametrize("name", ["cummax", "cummin"])
@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (3, 33), (70,)])
@pytest.mark.parametrize("axis", [0, -1])
def test_running_extremes_and_their_places(name: str, shape: tuple[int, ...], axis: int) -> None:
    def extremes(x: torch.Tensor) -> torch.Tensor:
        values, places = getattr(torch, name)(x, axis)
        return values + 2 * places

    assert name not in check_prepared(extremes, torch.randn(shape).round())


@pytest.mark.parametrize("shape", [(2, 1), (3, 33), (70,)])
@pytest.mark.parametrize("axis", [0, -1])
def test_running_sums_of_powers(shape: tuple[int, ...], axis: int) -> None:
    found = check_prepared(lambda x: x.logcumsumexp(axis), 30 * torch.randn(shape))
    assert "logcumsumexp" not in found


def test_compiled_running_extremes_and_powers() -> None:
    def running(x: torch.Tensor) -> torch.Tensor:
        largest, places = x.cummax(-1)
        return largest + places + x.cummin(-1).values + x.logcumsumexp(-1)

    check_compiled(running, torch.randn(1, 2, 3, 70).round())


def test_running_extremes_keep_nan() -> None:
    def running(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([*x.cummax(1), *x.cummin(1)])

    x = torch.randn(2, 70)
    x[0, 40], x[1, 3] = math.nan, math.inf
    check_compiled(running, x)


def test_nan_and_infinities_stay_behind_their_places() -> None:
    x = torch.randn(80)
    x[40], x[50], x[60] = math.inf, -math.inf, math.nan
    check_compiled(lambda x: torch.stack([x.cumsum(0), x.logcumsumexp(0)]), x, 1e-4)


def test_running_extremes_of_whole_numbers() -> None:
    x = torch.tensor([3.0, -2.0, 5.0, 5.0, -7.0, 9.0])
    for name in ("cummax", "cummin"):
        check_compiled(lambda x, name=name: torch.stack(getattr(x.long(), name)(0)), x, 0)
