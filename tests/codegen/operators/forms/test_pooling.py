"""Pooling over windows and bins."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared

HOST = get_target("host")


def test_largest_pixels_of_channels() -> None:
    def pooled(x: torch.Tensor) -> torch.Tensor:
        values, places = nn.functional.adaptive_max_pool2d(x, 1, return_indices=True)
        return values * 2 + places

    assert "adaptive_max_pool2d" not in check_prepared(pooled, torch.randn(2, 3, 4, 5))


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 5))
)
@settings(max_examples=15, deadline=None)
def test_largest_pixels_of_bins(size: tuple[int, int], bins: tuple[int, int]) -> None:
    def pooled(x: torch.Tensor) -> torch.Tensor:
        values, places = nn.functional.adaptive_max_pool2d(x, bins, return_indices=True)
        return values + 3 * places

    x = torch.randperm(6 * size[0] * size[1]).reshape(2, 3, *size).float()
    assert "adaptive_max_pool2d" not in check_prepared(pooled, x)


def test_means_of_bins_of_frames() -> None:
    x = torch.rand(1, 3, 4, 8)
    check_compiled(lambda x: nn.functional.adaptive_avg_pool3d(x, (2, 2, 3)), x)
    check_compiled(lambda x: nn.functional.adaptive_avg_pool3d(x[None], (2, 3, 5))[0], x)


def test_windows_without_a_batch() -> None:
    pool = nn.AvgPool2d((4, 1), (3, 1), ceil_mode=True)
    check_compiled(lambda x: pool(x[0])[None], torch.rand(1, 2, 8, 9))


@given(
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_largest_pixels_of_windows(
    size: tuple[int, int], kernel: int, stride: int, dilation: int, edge: bool, ceil: bool
) -> None:
    window = (kernel, stride, kernel // 2 if edge else 0, dilation, ceil)

    def pooled(x: torch.Tensor) -> torch.Tensor:
        values, places = nn.functional.max_pool2d(x, *window, return_indices=True)
        return values + 3 * places

    x = torch.randperm(6 * size[0] * size[1]).reshape(2, 3, *size).float()
    assert "max_pool2d_with_indices" not in check_prepared(pooled, x)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_pixels_go_back_where_they_came_from(kernel: int, stride: int, padding: int) -> None:
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        window = (kernel, stride, padding)
        y, places = nn.functional.max_pool2d(x, *window, return_indices=True)
        return nn.functional.max_unpool2d(y * 2, places, *window, output_size=x.shape[2:])

    x = torch.randperm(3 * 8 * 12, generator=torch.Generator().manual_seed(0)).float()
    check_compiled(there_and_back, x.reshape(1, 3, 8, 12))


def test_largest_pixels_of_volumes() -> None:
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        y, places = nn.functional.max_pool3d(x, 2, return_indices=True)
        return nn.functional.max_unpool3d(y * 2, places, 2)

    found = check_prepared(there_and_back, torch.randn(1, 2, 4, 6, 8))
    assert "max_pool3d_with_indices" not in found


def test_bins_of_doubles() -> None:
    x = torch.rand(1, 2, 5, 7)
    check_compiled(lambda x: F.adaptive_avg_pool2d(x.double(), (3, 4)), x, 1e-12)
