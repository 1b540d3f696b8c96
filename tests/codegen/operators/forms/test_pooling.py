"""Pooling over windows and bins."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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


def test_windows_without_a_batch() -> None:
    pool = nn.AvgPool2d((4, 1), (3, 1), ceil_mode=True)
    check_compiled(lambda x: pool(x[0])[None], torch.rand(1, 2, 8, 9))
