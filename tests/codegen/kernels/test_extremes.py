"""Extremes of NaN and of infinities, as torch has them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.codegen.operators.programs import check_compiled


def _special(*shape: int) -> torch.Tensor:
    """Return numbers, some of which are NaN or infinite."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    flat = x.view(-1)
    flat[::11], flat[1::13], flat[2::17] = math.nan, math.inf, -math.inf
    return x


def test_nan_passes_through_bounds_and_largest_elements() -> None:
    def bounded(x: torch.Tensor) -> torch.Tensor:
        other = x.flip(-1)
        return torch.stack(
            [
                *(x.relu(), F.relu6(x), x.clamp(-1, 2), x.clamp(min=0.5), F.hardswish(x)),
                *(torch.maximum(x, other), torch.minimum(x, other), x.clamp(x * 0, other)),
                *(x.amax(1, keepdim=True) + x * 0, x.amin((2, 3), keepdim=True) + x * 0),
                F.max_pool2d(x, 3, 1, 1),
            ]
        )

    check_compiled(bounded, _special(2, 3, 8, 16))


def test_nan_differs_from_all() -> None:
    def truths(x: torch.Tensor) -> torch.Tensor:
        other = x.flip(-1)
        found = [x != 0, x != other, torch.logical_not(x < 1), ~(x >= other), (x != 0).any(0)[None]]
        return torch.stack([each.expand(x.shape) for each in found]) * 1.5

    check_compiled(truths, _special(2, 3, 8), error=0)


@pytest.mark.parametrize("dim", [0, -1])
def test_extremes_of_infinite_rows_are_infinite(dim: int) -> None:
    def extremes(x: torch.Tensor) -> torch.Tensor:
        low, high = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
        least, most = torch.where(x > 9, x, low), torch.where(x > 9, x, high)
        return torch.stack([least.amax(dim), most.amin(dim), least.max(dim)[0], most.min(dim)[0]])

    check_compiled(extremes, torch.rand(16, 16))
