"""Running sums, products and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten


def _cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Sum runs by a product with a triangle of ones, then the runs before each, the same way."""
    whole = not (x.is_floating_point() or x.is_complex())
    kind = dtype or (torch.int64 if whole else x.dtype)
    if x.dim() == 0:
        return x.to(kind)
    rows = x.to(kind).movedim(dim, -1)
    count = rows.shape[-1]
    runs = -(-count // _RUN)
    rows = F.pad(rows, (0, runs * _RUN - count)).unflatten(-1, (runs, _RUN))
    if kind.is_floating_point:
        sums = rows @ torch.ones(_RUN, _RUN, dtype=kind).triu()
    else:  # whole numbers have no matrix product
        triangle = torch.ones(_RUN, _RUN, dtype=torch.bool).tril()
        sums = torch.where(triangle, rows[..., None, :], 0).sum(-1, dtype=kind)
    if runs > 1:
        totals = _cumsum(sums[..., :-1, -1], -1)
        sums = sums + F.pad(totals, (1, 0))[..., None]
    return sums.flatten(-2)[..., :count].movedim(-1, dim)


_RUN = 32


def _cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Multiply each element by the product of those before it: twice as many with every step."""
    whole = not (x.is_floating_point() or x.is_complex())
    y = x.to(dtype or (torch.int64 if whole else x.dtype))
    if y.dim() == 0:
        return y
    y = y.movedim(dim, -1)
    count, reach = y.shape[-1], 1
    while reach < count:
        y = y * F.pad(y[..., : count - reach], (reach, 0), value=1)
        reach *= 2
    return y.movedim(-1, dim)


def _prod(
    x: Tensor, dim: int, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Multiply one half by the other until one element is left."""
    whole = not (x.is_floating_point() or x.is_complex())
    y = x.to(dtype or (torch.int64 if whole else x.dtype))
    if y.dim() == 0:
        return y
    while (count := y.shape[dim]) > 1:
        half = count // 2
        pairs = y.narrow(dim, 0, half) * y.narrow(dim, half, half)
        y = torch.cat([pairs, y.narrow(dim, 2 * half, 1)], dim) if count % 2 else pairs
    return y if keepdim else y.squeeze(dim)


def _running(largest: bool) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Return running extremes and their places, the last of equal ones as torch has it."""

    def extremes(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        if not x.is_floating_point():
            return NotImplemented  # type: ignore[return-value]
        if x.dim() == 0:
            return x.clone(), torch.zeros((), dtype=torch.int64)
        y = x.movedim(dim, -1)
        count, reach = y.shape[-1], 1
        # Floats count exactly up to 2^24, and TVM pads whole numbers with floats.
        place = torch.arange(count, dtype=torch.float32).expand(y.shape)
        worst = -math.inf if largest else math.inf
        while reach < count:
            before = F.pad(y[..., : count - reach], (reach, 0), value=worst)
            earlier = F.pad(place[..., : count - reach], (reach, 0))
            own = (y >= before) if largest else (y <= before)
            y, place = torch.where(own, y, before), torch.where(own, place, earlier)
            reach *= 2
        return y.movedim(-1, dim), place.to(torch.int64).movedim(-1, dim)

    return extremes


def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """Add up powers of e beside the largest so far: each step reaches twice as far."""
    if x.dim() == 0:
        return x.clone()
    y = x.movedim(dim, -1)
    count, reach = y.shape[-1], 1
    while reach < count:
        later, before = y[..., reach:], y[..., : count - reach]
        y = torch.cat([y[..., :reach], torch.logaddexp(later, before)], -1)
        reach *= 2
    return y.movedim(-1, dim)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.cumsum.default: _cumsum,
    aten.cumprod.default: _cumprod,
    aten.cummax.default: _running(largest=True),
    aten.cummin.default: _running(largest=False),
    aten.logcumsumexp.default: _logcumsumexp,
    aten.prod.dim_int: _prod,
}
