"""Sorting, and what is found by sorting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as op
from torch import Tensor, fx
from tvm import relax

from distillc.codegen.kernels.argsort import argsort_kernel
from distillc.codegen.operators.lowering import Lowering

aten = torch.ops.aten


def _sort(
    x: Tensor, *, stable: bool | None = False, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Sort along the last axis; truth values as whole numbers."""
    if x.dtype == torch.bool:
        values, order = torch.sort(x.to(torch.int32), stable=stable, dim=dim, descending=descending)
        return values.to(torch.bool), order
    axis = dim % x.dim()
    if axis == x.dim() - 1:
        return NotImplemented
    rows = x.movedim(axis, -1)
    values, order = torch.sort(rows, stable=stable, descending=descending)
    return values.movedim(-1, axis), order.movedim(-1, axis)


def _topk(
    x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    """Sort all, take the first: of equal elements those in front, where torch takes any."""
    values, order = torch.sort(x, stable=True, dim=dim, descending=largest)
    return values.narrow(dim, 0, k), order.narrow(dim, 0, k)


def _median(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Take the lower of the two in the middle; the first NaN where there is one."""
    if not x.is_floating_point() or not x.dim():
        return _kthvalue(x, (x.shape[dim] - 1) // 2 + 1, dim, keepdim)
    extent, none = x.shape[dim], _without_number(x, dim)
    return _at_rank(x, torch.where(none > 0, extent - none, (extent - 1) // 2), dim, keepdim)


def _nanmedian(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Take the median of what is a number."""
    if not x.is_floating_point() or not x.dim():
        return _median(x, dim, keepdim)
    numbers = x.shape[dim] - _without_number(x, dim)
    return _at_rank(x, (numbers - 1).clamp(min=0) // 2, dim, keepdim)


def _without_number(x: Tensor, dim: int) -> Tensor:
    """Count NaN: they are the last ones where rows are sorted."""
    return x.isnan().sum(dim, keepdim=True)


def _at_rank(x: Tensor, rank: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Sort all, take the one of a rank of each row, counted from 0."""
    values, order = torch.sort(x, stable=True, dim=dim)
    found = values.gather(dim, rank), order.gather(dim, rank)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Sort all, take the one of this rank, counted from 1."""
    values, order = torch.sort(x, stable=True, dim=dim)
    found = values.narrow(dim, k - 1, 1), order.narrow(dim, k - 1, 1)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.sort.stable: _sort,
    aten.sort.default: lambda x, dim=-1, descending=False: torch.sort(
        x, stable=True, dim=dim, descending=descending
    ),
    aten.kthvalue.default: _kthvalue,
    aten.topk.default: _topk,
    aten.median.dim: _median,
    aten.median.default: lambda x: _median(x.flatten(), 0)[0],
    aten.nanmedian.dim: _nanmedian,
    aten.nanmedian.default: lambda x: _nanmedian(x.flatten(), 0)[0],
}


def _convert(context: Lowering, node: fx.Node, importer: Any) -> relax.Var:
    """Lower a stable sort along the last axis to our kernel, which gives the order."""
    emit = importer.block_builder.emit
    x = importer.env[node.args[0]]
    shape = [int(extent) for extent in x.ty.shape]
    rows = (math.prod(shape[:-1]), shape[-1])
    kernel = argsort_kernel(*rows, x.ty.dtype, bool(node.kwargs.get("descending", False)))
    function = importer.block_builder.add_func(kernel, "argsort")
    flat = emit(relax.op.reshape(x, rows))
    order = emit(relax.call_tir(function, [flat], relax.TensorType(rows, "int64")))
    order = emit(relax.op.reshape(order, shape))
    values = emit(relax.op.gather_elements(x, order, axis=len(shape) - 1))
    return emit(relax.Tuple([values, order]))


def _translate(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """Sort by TopK of all elements, of which equal ones keep their order."""
    count = op.Constant(value_ints=[int(x.shape[dim])])
    return op.TopK(x, count, axis=dim, largest=int(descending))


CONVERSIONS = {aten.sort.stable: _convert}
TRANSLATIONS = {aten.sort.stable: _translate}
