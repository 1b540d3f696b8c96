"""Running sums, products and extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distillc.codegen.operators.forms.arithmetic import accumulated_in, is_whole, of_halves

aten = torch.ops.aten


def _cumsum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Sum each run so far, then the runs before it, the same way; NaN stays behind its place."""
    kind = accumulated_in(x, dtype)
    if x.dim() == 0:
        return x.to(kind)
    rows = x.to(kind).movedim(dim, -1)
    count, rows = rows.shape[-1], _in_runs(rows, 0)
    sums = torch.where(_so_far(rows), rows[..., None, :], 0).sum(-1, dtype=kind)
    if rows.shape[-2] > 1:
        totals = _cumsum(sums[..., :-1, -1], -1)
        sums = sums + F.pad(totals, (1, 0))[..., None]
    return sums.flatten(-2)[..., :count].movedim(-1, dim)


_RUN = 32


def _cumprod(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Multiply each element by the product of those before it: twice as many with every step."""
    y = x.to(accumulated_in(x, dtype))
    if y.dim() == 0:
        return y
    y = y.movedim(dim, -1)
    count, reach = y.shape[-1], 1
    while reach < count:
        y = y * F.pad(y[..., : count - reach], (reach, 0), value=1)
        reach *= 2
    return y.movedim(-1, dim)


def _running(largest: bool) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    """Return running extremes and their places, the last of equal ones as torch has it."""

    def extremes(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        if is_whole(x):
            found, place = extremes(x.to(torch.float64), dim)
            return found.to(x.dtype), place
        if x.dim() == 0:
            return x.clone(), torch.zeros((), dtype=torch.int64)
        y = (x if largest else -x).movedim(dim, -1)
        # Floats count exactly up to 2^24, and TVM pads whole numbers with floats.
        place = torch.arange(y.shape[-1], dtype=torch.float32).expand(y.shape)
        y, place = (each.movedim(-1, dim) for each in _extremes(y, place))
        return y if largest else -y, place.to(torch.int64)

    return extremes


def _extremes(y: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Find the largest of each run so far, then of the runs before it, the same way."""
    count = y.shape[-1]
    y, place = _in_runs(y, -math.inf), _in_runs(place, -1.0)
    so_far = _so_far(y)
    largest = torch.where(so_far, y[..., None, :], -math.inf).amax(-1)
    equal = so_far & ((y[..., None, :] == largest[..., None]) | y[..., None, :].isnan())
    place = torch.where(equal, place[..., None, :], -1.0).amax(-1)
    if y.shape[-2] > 1:
        earlier, there = _extremes(largest[..., :-1, -1], place[..., :-1, -1])
        earlier = F.pad(earlier, (1, 0), value=-math.inf)[..., None]
        own = (largest >= earlier) | largest.isnan()
        largest = torch.where(own, largest, earlier)
        place = torch.where(own, place, F.pad(there, (1, 0))[..., None])
    return largest.flatten(-2)[..., :count], place.flatten(-2)[..., :count]


def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """Add up powers of e beside the largest of each run so far, then the runs before it."""
    if x.dim() == 0:
        return x.clone()
    y = x.movedim(dim, -1)
    count, y = y.shape[-1], _in_runs(y, -math.inf)
    so_far = _so_far(y)
    largest = torch.where(so_far, y[..., None, :], -math.inf).amax(-1)
    largest = torch.where(largest.isinf(), 0.0, largest)
    powers = (y[..., None, :] - largest[..., None]).exp()
    sums = torch.where(so_far, powers, 0.0).sum(-1).log() + largest
    if y.shape[-2] > 1:
        earlier = _logcumsumexp(sums[..., :-1, -1], -1)
        sums = torch.logaddexp(sums, F.pad(earlier, (1, 0), value=-math.inf)[..., None])
    return sums.flatten(-2)[..., :count].movedim(-1, dim)


def _in_runs(y: Tensor, rest: float) -> Tensor:
    """Cut the last axis into runs; what is missing of the last one is filled up."""
    run = min(_RUN, y.shape[-1])
    runs = -(-y.shape[-1] // run)
    return F.pad(y, (0, runs * run - y.shape[-1]), value=rest).unflatten(-1, (runs, run))


def _so_far(runs: Tensor) -> Tensor:
    """Return, for each place of a run, which places are not behind it."""
    return torch.ones(runs.shape[-1], runs.shape[-1], dtype=torch.bool).tril()


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.cumsum.default: of_halves(aten.cumsum.default, _cumsum),
    aten.cumprod.default: of_halves(aten.cumprod.default, _cumprod),
    aten.cummax.default: _running(largest=True),
    aten.cummin.default: _running(largest=False),
    aten.logcumsumexp.default: of_halves(aten.logcumsumexp.default, _logcumsumexp),
}
