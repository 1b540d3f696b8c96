"""Reads at computed places, and views."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """Compare with every class; torch's own form asserts at run time that classes are in range."""
    if num_classes < 0:  # as many as the image's largest value asks for
        return NotImplemented
    return (x.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    """TVM's importer reads before the tensor where an index counts from the end."""
    if index >= 0:
        return NotImplemented  # it stays as it is
    return aten.select.int(x, dim, index + x.shape[dim])


def index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Read by whole numbers along some axes: one lookup in those axes made one."""
    axes = [axis for axis, each in enumerate(indices) if each is not None]
    given = [each for each in indices if each is not None]
    if any(each.dtype in (torch.bool, torch.uint8) for each in given):
        return NotImplemented
    if len(axes) <= axes[-1] - axes[0]:  # apart: what is found comes first, as in NumPy
        x = x.movedim(axes, tuple(range(len(axes))))
        axes = list(range(len(axes)))
    first, last = axes[0], axes[-1]
    place = torch.zeros((), dtype=torch.int64)
    for axis, each in zip(axes, given, strict=True):
        extent = x.shape[axis]
        place = place * extent + torch.where(each < 0, each + extent, each)
    merged = x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
    found = torch.index_select(merged, first, place.reshape(-1))
    return found.reshape(*x.shape[:first], *place.shape, *x.shape[last + 1 :])


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along an axis: a view where they stand side by side, else rows read several times."""
    axis, count = dim % x.dim(), (x.shape[dim] - size) // step + 1
    if step == size:
        rows = x.narrow(axis, 0, count * size)
    else:
        places = step * torch.arange(count)[:, None] + torch.arange(size)
        rows = torch.index_select(x, axis, places.reshape(-1))
    return rows.unflatten(axis, (count, size)).movedim(axis + 1, -1)


def _view(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A form before may have given x other strides than the program was exported with."""
    if x.is_contiguous():
        return NotImplemented
    return x.clone(memory_format=torch.contiguous_format).view(shape)


def _as_strided(
    x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Tensor:
    """Read the places of the memory; a view where they follow each other."""
    if not x.is_contiguous():
        return NotImplemented
    if offset in (None, 0) and torch.empty_strided(size, stride, device="meta").is_contiguous():
        return x.reshape(-1)[: math.prod(size)].reshape(size)
    places = torch.full((), offset or 0, dtype=torch.int64)
    for extent, step in zip(size, stride, strict=True):
        places = places.unsqueeze(-1) + torch.arange(extent) * step
    return torch.index_select(x.reshape(-1), 0, places.reshape(-1)).reshape(size)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one type, the one that torch promotes them to.

    Those without elements are left out, as the rest of a split at its end has none.
    """
    kind = functools.reduce(torch.promote_types, (each.dtype for each in tensors))
    filled = [each.to(kind) for each in tensors if each.numel()]
    if len(filled) in (0, len(tensors)) and all(each.dtype == kind for each in tensors):
        return NotImplemented
    return filled[0].clone() if len(filled) == 1 else torch.cat(filled or list(tensors), dim)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.select.int: _select,
    aten.one_hot.default: _one_hot,
    aten.index.Tensor: index,
    aten.unfold.default: _unfold,
    aten.cat.default: _cat,
    aten.view.default: _view,
    aten.as_strided.default: _as_strided,
    # Only strides change, and compiled tensors are contiguous.
    torch.ops.prims.copy_strided.default: lambda x, stride: x.clone(),
}
