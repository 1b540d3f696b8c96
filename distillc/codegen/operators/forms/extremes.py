"""Extremes and the places where they stand; products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from tvm import relax

from distillc.codegen.operators.forms.arithmetic import accumulated_in, of_halves
from distillc.codegen.operators.lowering import Lowering

aten = torch.ops.aten

Reduce = Callable[..., Tensor]


def extreme_of(
    x: Tensor, dim: int, keepdim: bool = False, *, reduce: Reduce = torch.amax
) -> tuple[Tensor, Tensor]:
    """Find an extreme and the first place where it stands, by reductions of one number each.

    NaN is both the largest and the smallest, as torch has it.
    """
    extreme = reduce(x, dim, keepdim=True)
    extent = x.shape[dim]
    left = extent - torch.arange(extent, dtype=torch.float32)  # counts down: the first is largest
    left = left.reshape(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
    found = x == extreme
    if x.is_floating_point():
        found = found | x.isnan()
    place = extent - torch.amax(torch.where(found, left, 0), dim, keepdim=True)
    both = extreme, place.to(torch.int64)
    return both if keepdim else (both[0].squeeze(dim), both[1].squeeze(dim))


largest_of = extreme_of
smallest_of = functools.partial(extreme_of, reduce=torch.amin)


def _place(reduce: Reduce) -> Callable[..., Tensor]:
    def place(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        given = x.flatten() if dim is None else x
        return extreme_of(given, dim or 0, keepdim, reduce=reduce)[1]

    return place


def _amax(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """Of truth values TVM knows no smallest."""
    return x.any(list(dim) or None, keepdim) if x.dtype == torch.bool else NotImplemented


def _amin(x: Tensor, dim: Sequence[int] = (), keepdim: bool = False) -> Tensor:
    return x.all(list(dim) or None, keepdim) if x.dtype == torch.bool else NotImplemented


def _any(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Ask which numbers differ from 0: TVM takes the largest one for the answer."""
    if dim is None:
        return x.flatten().any(0)
    if x.dtype == torch.bool:
        return NotImplemented
    found = (x != 0).any(dim, keepdim)
    return found.to(torch.uint8) if x.dtype == torch.uint8 else found  # as torch has it


def _prod(
    x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Give whole numbers the type that torch multiplies them in."""
    if dim is None:
        return x.flatten().prod(0, dtype=dtype)
    kind = accumulated_in(x, dtype)
    return NotImplemented if x.dtype == kind else x.to(kind).prod(dim, keepdim)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.max.dim: largest_of,
    aten.min.dim: smallest_of,
    aten.argmax.default: _place(torch.amax),
    aten.argmin.default: _place(torch.amin),
    aten.amax.default: _amax,
    aten.amin.default: _amin,
    aten.max.default: lambda x: x.any() if x.dtype == torch.bool else NotImplemented,
    aten.min.default: lambda x: x.all() if x.dtype == torch.bool else NotImplemented,
    aten.any.default: _any,
    aten.any.dim: _any,
    aten.any.dims: _any,
    aten.prod.dim_int: of_halves(aten.prod.dim_int, _prod),
    aten.prod.default: lambda x, *, dtype=None: _prod(x, dtype=dtype),
}


def _convert(reduce: Any, context: Lowering, node: fx.Node, importer: Any) -> relax.Var:
    given: dict[str, Any] = dict(zip(("x", "axes", "keepdim"), node.args, strict=False))
    axes = given.get("axes", ())
    axes = [axes] if isinstance(axes, int) else list(axes) or None
    value = reduce(importer.env[given["x"]], axes, given.get("keepdim", False))
    return importer.block_builder.emit(value)


CONVERSIONS = {
    aten.amax.default: functools.partial(_convert, relax.op.max),
    aten.amin.default: functools.partial(_convert, relax.op.min),
    aten.prod.dim_int: functools.partial(_convert, relax.op.prod),
}
