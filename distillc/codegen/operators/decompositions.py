"""Operators that TVM's importer does not know, in terms of some that it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distillc.codegen.operators.resizing import (
    adaptive_avg_pool,
    avg_pool,
    upsample_bicubic_aa,
    upsample_bilinear,
    upsample_bilinear_aa,
    upsample_nearest,
)
from distillc.codegen.operators.sampling import affine_grid, col2im, grid_sampler

aten = torch.ops.aten


def _promote(function: Callable[..., Tensor], x: Tensor, y: Any, quotient: bool = False) -> Tensor:
    """Make whole numbers floats where torch does: TVM computes in the first operand's type."""
    kind = torch.result_type(x, y)
    if quotient and not kind.is_complex and not kind.is_floating_point:
        kind = torch.float32
    tensors = [each for each in (x, y) if isinstance(each, Tensor)]
    if not kind.is_floating_point or all(each.is_floating_point() for each in tensors):
        return NotImplemented
    return function(*(each.to(kind) if isinstance(each, Tensor) else each for each in (x, y)))


def _add(x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    """Multiply first what is added: TVM 0.27's importer drops the factor."""
    return _promote(torch.add, x, y) if alpha == 1 else x + y * alpha


def _sub(x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    return _promote(torch.sub, x, y) if alpha == 1 else x - y * alpha


def _mul(x: Tensor, y: Any) -> Tensor:
    return _promote(torch.mul, x, y)


def _div(x: Tensor, y: Any) -> Tensor:
    return _promote(torch.div, x, y, quotient=True)


def _of_whole(operator: Any) -> Callable[..., Tensor]:
    """Return a form that gives a number of Python the type of the whole numbers beside it."""

    def apply(x: Tensor, y: Any, **options: Any) -> Tensor:
        if isinstance(y, Tensor) or x.is_floating_point() or isinstance(y, float):
            return NotImplemented
        result: Tensor = operator(x, torch.full((), y, dtype=x.dtype), **options)
        return result

    return apply


def _reciprocal(x: Tensor) -> Tensor:
    whole = not x.is_floating_point() and not x.is_complex()
    return x.to(torch.float32).reciprocal() if whole else NotImplemented


def _one_hot(x: Tensor, num_classes: int = -1) -> Tensor:
    """Compare with every class; torch's own form asserts at run time that classes are in range."""
    if num_classes < 0:  # as many as the image's largest value asks for
        return NotImplemented
    return (x.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)


def _max(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Find the largest and the first place where it stands, by reductions of one number each."""
    largest = torch.amax(x, dim, keepdim=True)
    extent = x.shape[dim]
    left = extent - torch.arange(extent, dtype=torch.float32)  # counts down: the first is largest
    left = left.reshape(-1, *[1] * (x.dim() - 1 - dim % x.dim()))
    place = extent - torch.amax(torch.where(x == largest, left, 0), dim, keepdim=True)
    found = largest, place.to(torch.int64)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))


def _min(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, indices = _max(-x, dim, keepdim)
    return -values, indices


def _argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return _max(x.flatten() if dim is None else x, dim or 0, keepdim)[1]


def _argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    return _argmax(-x, dim, keepdim)


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    """TVM's importer reads before the tensor where an index counts from the end."""
    if index >= 0:
        return NotImplemented  # it stays as it is
    return aten.select.int(x, dim, index + x.shape[dim])


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
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


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    """Write one value wherever a mask says so, or values at places."""
    if accumulate:
        return NotImplemented
    mask = indices[0]
    if mask is None or mask.dtype != torch.bool:
        one_axis = x.dim() == 1 and mask is not None and mask.shape == values.shape
        return NotImplemented if one_axis else _write(x, _index(_places(x), indices), values)
    rest = x.dim() - mask.dim()
    if values.dim() == rest + 1 and len(values) == 1:
        values = values[0]
    if len(indices) > 1 or values.dim() > rest:
        return NotImplemented
    return torch.where(mask.reshape(*mask.shape, *[1] * rest), values, x)


def _places(x: Tensor) -> Tensor:
    """Return the place of each element in the flat tensor."""
    return torch.arange(x.numel()).reshape(x.shape)


def _write(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Write values, broadcast, at places of the flat tensor: what `scatter_kernel` does."""
    values = values.expand(places.shape).reshape(-1)
    return aten.index_put(x.reshape(-1), [places.reshape(-1)], values).reshape(x.shape)


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
    for number in range(count):
        given = values.narrow(axis, number, 1) if isinstance(values, Tensor) else values
        x = torch.where(places == index.narrow(axis, number, 1), given, x)
    return x


_MOST_CHOICES = 16


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


def _sort(
    x: Tensor, *, stable: bool | None = False, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Sort along the last axis."""
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
    """Sort all, take the lower of the two in the middle."""
    values, order = torch.sort(x, stable=True, dim=dim)
    middle = (x.shape[dim] - 1) // 2
    found = (each.narrow(dim, middle, 1) for each in (values, order))
    value, place = (each if keepdim else each.squeeze(dim) for each in found)
    return value, place


def _unfold(x: Tensor, dim: int, size: int, step: int) -> Tensor:
    """Windows along an axis: a view where they stand side by side, else rows read several times."""
    axis, count = dim % x.dim(), (x.shape[dim] - size) // step + 1
    if step == size:
        rows = x.narrow(axis, 0, count * size)
    else:
        places = step * torch.arange(count)[:, None] + torch.arange(size)
        rows = torch.index_select(x, axis, places.reshape(-1))
    return rows.unflatten(axis, (count, size)).movedim(axis + 1, -1)


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


def _adaptive_max_pool(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Find the largest pixel of each channel."""
    if tuple(output_size) != (1, 1):
        return NotImplemented
    largest, place = _max(x.flatten(-2), -1)
    return largest[..., None, None], place[..., None, None]


def _var_mean(
    x: Tensor,
    dim: list[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """Two passes."""
    axes = list(range(x.dim())) if dim is None else dim
    mean = x.mean(axes, keepdim=True)
    left = max(
        math.prod(x.shape[axis] for axis in axes) - (1 if correction is None else correction), 0
    )
    squares = ((x - mean) * (x - mean)).sum(axes, keepdim=keepdim)
    return squares / left, mean if keepdim else x.mean(axes)


def _normalize(x: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return x with mean 0 and variance 1 along some axes, its means, and what it was scaled by."""
    mean = x.mean(dims, keepdim=True)
    centered = x - mean
    scale = ((centered * centered).mean(dims, keepdim=True) + eps).rsqrt()
    return centered * scale, mean, scale


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scale and shift the channels, axis 1."""
    shape = (-1, *[1] * (x.dim() - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    pixels: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Two passes over each group: TVM subtracts the square of the mean from that of squares."""
    y, mean, scale = _normalize(x.reshape(batch, groups, -1), [2], eps)
    return _affine(y.reshape(x.shape), weight, bias), mean.squeeze(2), scale.squeeze(2)


def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for every channel: torch puts images and channels in one axis."""
    dims = [axis for axis in range(x.dim()) if axis != 1]
    y, mean, scale = _normalize(x, dims, eps)
    return _affine(y, weight, bias), mean.flatten(), scale.flatten()


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: _add,
    aten.sub.Tensor: _sub,
    aten.mul.Tensor: _mul,
    aten.div.Tensor: _div,
    aten.reciprocal.default: _reciprocal,
    aten.max.dim: _max,
    aten.min.dim: _min,
    aten.argmax.default: _argmax,
    aten.argmin.default: _argmin,
    aten.hypot.default: _hypot,
    aten.select.int: _select,
    aten.one_hot.default: _one_hot,
    aten.index.Tensor: _index,
    aten.index_put.default: _index_put,
    aten.scatter.value: _scatter,
    aten.scatter.src: _scatter,
    aten.sort.stable: _sort,
    aten.topk.default: _topk,
    aten.median.dim: _median,
    aten.median.default: lambda x: _median(x.flatten(), 0)[0],
    aten.cumsum.default: _cumsum,
    aten.cumprod.default: _cumprod,
    aten.floor_divide.default: _of_whole(aten.floor_divide.default),
    aten.div.Tensor_mode: _of_whole(aten.div.Tensor_mode),
    aten.remainder.Scalar: _of_whole(aten.remainder.Tensor),
    aten.fmod.Scalar: _of_whole(aten.fmod.Tensor),
    aten.unfold.default: _unfold,
    aten.slice_scatter.default: _slice_scatter,
    aten.var_mean.correction: _var_mean,
    aten.native_group_norm.default: _group_norm,
    aten._native_batch_norm_legit.no_stats: _instance_norm,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool,
    aten._upsample_bilinear2d_aa.default: upsample_bilinear_aa,
    aten._upsample_bicubic2d_aa.default: upsample_bicubic_aa,
    aten.upsample_nearest2d.vec: upsample_nearest,
    aten.upsample_bilinear2d.vec: upsample_bilinear,
    aten.avg_pool2d.default: avg_pool,
    aten.affine_grid_generator.default: affine_grid,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.grid_sampler_2d.default: grid_sampler,
    aten.col2im.default: col2im,
}
