"""Writes at computed places."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx
from tvm import relax

from distillc.codegen.kernels.scatter import scatter_kernel
from distillc.codegen.operators.forms.reads import index as read
from distillc.codegen.operators.lowering import Lowering

aten = torch.ops.aten


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    """Write one value wherever a mask says so, or values at places."""
    mask = indices[0]
    if mask is None or mask.dtype != torch.bool:
        one_axis = x.dim() == 1 and mask is not None and mask.shape == values.shape
        if one_axis:
            return NotImplemented
        return _write(x, read(_places(x), indices), values, accumulate)
    if accumulate:
        return NotImplemented
    rest = x.dim() - mask.dim()
    if values.dim() == rest + 1 and len(values) == 1:
        values = values[0]
    if len(indices) > 1 or values.dim() > rest:
        return NotImplemented
    return torch.where(mask.reshape(*mask.shape, *[1] * rest), values, x)


def _places(x: Tensor) -> Tensor:
    """Return the place of each element in the flat tensor."""
    return torch.arange(x.numel()).reshape(x.shape)


def _write(x: Tensor, places: Tensor, values: Tensor, add: bool = False) -> Tensor:
    """Write or add values, broadcast, at places of the flat tensor: what `scatter_kernel` does."""
    if x.dtype == torch.bool:  # the kernel writes numbers
        return _write(x.to(torch.int32), places, values.to(torch.int32), add).to(torch.bool)
    values = values.expand(places.shape).reshape(-1)
    return aten.index_put(x.reshape(-1), [places.reshape(-1)], values, add).reshape(x.shape)


def _scatter(x: Tensor, dim: int, index: Tensor, values: Tensor | float) -> Tensor:
    """Write numbers into each row; of few, each is a choice."""
    axis = dim % x.dim()
    count = index.shape[axis]
    rows = [extent for each, extent in enumerate(x.shape) if each != axis]
    if count > _MOST_CHOICES or rows != [e for n, e in enumerate(index.shape) if n != axis]:
        if isinstance(values, Tensor):
            values = values[tuple(map(slice, index.shape))]
        return _write(x, _places(x).gather(axis, index), torch.as_tensor(values, dtype=x.dtype))
    places = torch.arange(x.shape[axis]).reshape(-1, *[1] * (x.dim() - 1 - axis))
    if not isinstance(values, Tensor):
        values = torch.full(index.shape, values, dtype=x.dtype)
    for number in range(count):
        given = values.narrow(axis, number, 1)
        x = torch.where(places == index.narrow(axis, number, 1), given, x)
    return x


_MOST_CHOICES = 16


def _scatter_add(x: Tensor, dim: int, index: Tensor, values: Tensor) -> Tensor:
    if x.dim() == 0:
        return x + values
    values = values[tuple(map(slice, index.shape))]
    return _write(x, _places(x).gather(dim, index), values, add=True)


_NEUTRAL = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": -math.inf, "amin": math.inf}


def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, values: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Join values with what is there, or (without `include_self`) only with each other."""
    if x.dim() == 1 and include_self and reduce not in ("sum", "mean"):
        return NotImplemented  # what the kernel does
    if x.dim() == 0 or not x.is_floating_point():
        return NotImplemented
    values = values[tuple(map(slice, index.shape))]
    places = _places(x).gather(dim, index)
    written = _write(torch.zeros_like(x), places, torch.ones_like(values), add=True)
    if not include_self:
        x = torch.where(written > 0, _NEUTRAL[reduce], x)
    if reduce not in ("sum", "mean"):
        flat = x.reshape(-1), 0, places.reshape(-1), values.reshape(-1)
        return aten.scatter_reduce.two(*flat, reduce).reshape(x.shape)
    total = _write(x, places, values, add=True)
    if reduce == "sum":
        return total
    return total / (written + 1 if include_self else written.clamp(min=1.0))


def _scatter_and(
    x: Tensor, dim: int, index: Tensor, values: Tensor | float, *, reduce: str
) -> Tensor:
    joined = {"add": "sum", "multiply": "prod"}[reduce]
    values = torch.as_tensor(values, dtype=x.dtype).expand(index.shape)
    result: Tensor = x.scatter_reduce(dim, index, values, joined)
    return result


def _index_reduce(
    x: Tensor, dim: int, index: Tensor, values: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [1] * x.dim()
    shape[dim] = -1
    rows = index.reshape(shape).expand(values.shape)
    return x.scatter_reduce(dim, rows, values, reduce, include_self=include_self)


def _slice_scatter(
    x: Tensor,
    values: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """Write some rows: TVM's importer writes every second or third at wrong places."""
    axis, extent = dim % x.dim(), x.shape[dim]
    first, last, _ = slice(start, end).indices(extent)
    if not values.shape[axis]:
        return x
    if step == 1:
        parts = [x.narrow(axis, 0, first), values, x.narrow(axis, last, extent - last)]
        parts = [each for each in parts if each.shape[axis]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
    rows = torch.arange(extent)
    taken = (rows >= first) & (rows < last) & ((rows - first) % step == 0)
    source = ((rows - first) // step).clamp(0, values.shape[axis] - 1)
    spread = torch.index_select(values, axis, source)
    return torch.where(taken.reshape(-1, *[1] * (x.dim() - 1 - axis)), spread, x)


def _masked_scatter(x: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    """Write the values in their order wherever a mask says so."""
    x, mask = torch.broadcast_tensors(x, mask)
    number = mask.reshape(-1).cumsum(0) - 1
    taken = torch.index_select(values.reshape(-1), 0, number.clamp(0, values.numel() - 1))
    return torch.where(mask, taken.reshape(x.shape), x)


def _diagonal_scatter(
    x: Tensor, values: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    return _write(x, torch.diagonal(_places(x), offset, dim1, dim2), values)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.index_put.default: _index_put,
    aten.scatter.value: _scatter,
    aten.scatter.src: _scatter,
    aten.scatter_add.default: _scatter_add,
    aten.scatter_reduce.two: _scatter_reduce,
    aten.scatter.reduce: _scatter_and,
    aten.scatter.value_reduce: _scatter_and,
    aten.index_reduce.default: _index_reduce,
    aten.slice_scatter.default: _slice_scatter,
    aten.masked_scatter.default: _masked_scatter,
    aten.diagonal_scatter.default: _diagonal_scatter,
}


def is_other_write(node: fx.Node) -> bool:
    """Whether a node writes at computed places in a way that is not our kernel's."""
    if node.target is aten.scatter_reduce.two:
        return cast("Any", node.args)[0].meta["val"].dim() != 1
    if node.target is not aten.index_put.default:
        return False
    x, (place, *more), *_ = cast("Any", node.args)
    return x.meta["val"].dim() != 1 or bool(more) or place.meta["val"].dtype != torch.int64


def _convert(context: Lowering, node: fx.Node, importer: Any) -> relax.Var:
    """Lower writes into a flat tensor to our kernel."""
    given = cast("Any", fx.node.map_arg(node.args, lambda each: importer.env.get(each)))
    if node.target is aten.index_put.default:
        x, (places,), values, *add = given
        reduce = "sum" if any(add) else ""
    else:
        x, _, places, values, reduce = given
    (size,), (writes,) = ([int(each) for each in value.ty.shape] for value in (x, places))
    kernel = scatter_kernel(size, writes, x.ty.dtype, reduce)
    function = importer.block_builder.add_func(kernel, "scatter")
    result = relax.TensorType((size,), x.ty.dtype)
    return importer.block_builder.emit(relax.call_tir(function, [x, places, values], result))


CONVERSIONS = {aten.index_put.default: _convert, aten.scatter_reduce.two: _convert}
