"""Resizing by products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.codegen.prepare.programs import check_prepared

# Torch repeats the first row of an image one pixel wide where it smooths (2.14).
SIZES = st.tuples(st.integers(2, 9), st.integers(2, 9))


@given(SIZES, SIZES)
@settings(max_examples=20, deadline=None)
def test_average_of_bins(size: tuple[int, int], bins: tuple[int, int]) -> None:
    found = check_prepared(lambda x: F.adaptive_avg_pool2d(x, bins), torch.rand(2, 3, *size))
    divided = size[0] % bins[0] == 0 and size[1] % bins[1] == 0
    assert divided or "_adaptive_avg_pool2d" not in found


@given(st.sampled_from(["bilinear", "bicubic"]), SIZES, SIZES, st.booleans())
@settings(max_examples=20, deadline=None)
def test_antialiased(
    mode: str, size: tuple[int, int], result: tuple[int, int], align_corners: bool
) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, result, mode=mode, align_corners=align_corners, antialias=True)

    found = check_prepared(resized, torch.rand(2, 3, *size))
    assert not any("upsample" in name for name in found)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7])
def test_antialiased_by_a_factor(factor: float) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bicubic", antialias=True)

    check_prepared(resized, torch.rand(1, 3, 11, 16))
