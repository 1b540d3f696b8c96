"""Pooling over windows and over bins."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distillc.codegen.operators.forms.arithmetic import is_whole, of_halves
from distillc.codegen.operators.forms.extremes import largest_of
from distillc.codegen.operators.forms.types import by_doubles

aten = torch.ops.aten


def _adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Average bins, as `torch.nn.functional.adaptive_avg_pool2d` does.

    Args:
        x: (..., H, W).
        output_size: Rows and columns of bins.

    Returns:
        (..., rows, columns); not implemented where bins divide the image, which TVM pools itself.
    """
    (height, width), (rows, columns) = x.shape[-2:], output_size
    if height % rows == 0 and width % columns == 0:
        return NotImplemented
    return _shares(height, rows, x.dtype) @ x @ _shares(width, columns, x.dtype).T


def _adaptive_avg_pool_3d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """The same for (..., D, H, W): frames first, then each of the results."""
    frames, rows, columns = output_size
    if all(extent % bins == 0 for extent, bins in zip(x.shape[-3:], output_size, strict=True)):
        return NotImplemented
    pooled = (_shares(x.shape[-3], frames, x.dtype) @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
    pooled = F.adaptive_avg_pool2d(pooled.flatten(0, -4), (rows, columns))
    return pooled.reshape(*x.shape[:-3], *output_size)


def _bins(extent: int, count: int) -> tuple[Tensor, Tensor]:
    """Return where each bin begins and ends, (count, 1)."""
    number = torch.arange(count)[:, None]
    return number * extent // count, ((number + 1) * extent + count - 1) // count


def _shares(extent: int, count: int, kind: torch.dtype) -> Tensor:
    """Return the share that each place has in each bin's mean, (count, extent)."""
    (first, end), place = _bins(extent, count), torch.arange(extent)
    return ((first <= place) & (place < end)).to(kind) / (end - first)


def _adaptive_max_pool(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Find the largest pixel of each bin and its place in the image."""
    (height, width), pixels = x.shape[-2:], x.flatten(-2)
    if tuple(output_size) == (1, 1):
        largest, place = largest_of(pixels, -1)
        return largest[..., None, None], place[..., None, None]
    rows, columns = _windows(height, output_size[0]), _windows(width, output_size[1])
    places = (rows[:, None, :, None] * width + columns[:, None, :]).flatten(2)
    windows = torch.index_select(pixels, -1, places.reshape(-1))
    windows = windows.reshape(*x.shape[:-2], *places.shape)
    largest, number = largest_of(windows, -1, keepdim=True)
    place = torch.gather(places.expand(windows.shape), -1, number)
    return largest.squeeze(-1), place.squeeze(-1)


def _windows(extent: int, count: int) -> Tensor:
    """Return the places of each bin, (count, longest); a shorter one has its last several times."""
    first, end = _bins(extent, count)
    longest = max(-(-(n + 1) * extent // count) - n * extent // count for n in range(count))
    return torch.minimum(first + torch.arange(longest), end - 1)


def _avg_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Divide the sums of windows by a number of the user's, which TVM's importer drops."""
    if x.dim() == 3:  # no batch, which TVM's importer asks for
        args = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        return aten.avg_pool2d.default(x[None], *args)[0]
    if divisor_override is None:
        return NotImplemented
    kernel, step, border = (
        [*given] * (2 // len(given)) for given in (kernel_size, stride or kernel_size, padding)
    )
    missing = []
    for extent, size, stride_, before in zip(x.shape[-2:], kernel, step, border, strict=True):
        room = extent + 2 * before - size
        last = -(-room // stride_) if ceil_mode else room // stride_
        if last * stride_ >= extent + before:  # a window must begin inside the image
            last -= 1
        missing.append((before, max(0, last * stride_ + size - extent - before)))
    padded = F.pad(x, (*missing[1], *missing[0]))
    return F.avg_pool2d(padded, kernel, step) * (kernel[0] * kernel[1] / divisor_override)


def max_pool_with_places(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Find the largest pixel of each window and its place in the image, the first of equal ones.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W), or without N.
        kernel_size: One number an axis of the window, or one for all; so with what follows.

    Returns:
        Values and places (int64), of the size that `torch.nn.functional.max_pool2d` gives.
    """
    if is_whole(x):
        settings = kernel_size, stride, padding, dilation, ceil_mode
        found: tuple[Tensor, Tensor] = by_doubles(max_pool_with_places)(x, *settings)
        return found
    axes = len(kernel_size)
    extents, before = x.shape[-axes:], x.shape[:-axes]
    kernel, step, border, spread = (
        [*given] * (axes // len(given))
        for given in (kernel_size, stride or kernel_size, padding, dilation)
    )
    windows, places, counts = x, torch.zeros((), dtype=torch.int64), []
    for axis, extent in enumerate(extents):
        room = extent + 2 * border[axis] - spread[axis] * (kernel[axis] - 1) - 1
        last = -(-room // step[axis]) if ceil_mode else room // step[axis]
        if last * step[axis] >= extent + border[axis]:  # a window must begin inside the image
            last -= 1
        counts.append(last + 1)
        first = torch.arange(last + 1)[:, None] * step[axis] - border[axis]
        own = first + torch.arange(kernel[axis]) * spread[axis]
        row = own.reshape(-1)
        inside = ((row >= 0) & (row < extent)).reshape(-1, *[1] * (axes - 1 - axis))
        taken = torch.index_select(windows, axis - axes, row.clamp(0, extent - 1))
        windows = torch.where(inside, taken, -math.inf)
        places = places.unsqueeze(-1).unsqueeze(-1) * extent + own
    cut = [each for pair in zip(counts, kernel, strict=True) for each in pair]
    order = [*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)]
    whole = [*range(len(before)), *(len(before) + each for each in order)]
    windows = windows.reshape(*before, *cut).permute(whole).flatten(len(before) + axes)
    places = places.reshape(cut).permute(order).flatten(axes)
    largest, number = largest_of(windows, -1, keepdim=True)
    place = torch.gather(places.expand(windows.shape), -1, number)
    return largest.squeeze(-1), place.squeeze(-1)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._adaptive_avg_pool2d.default: of_halves(
        aten._adaptive_avg_pool2d.default, _adaptive_avg_pool
    ),
    aten._adaptive_avg_pool3d.default: of_halves(
        aten._adaptive_avg_pool3d.default, _adaptive_avg_pool_3d
    ),
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
    aten.avg_pool2d.default: of_halves(aten.avg_pool2d.default, _avg_pool),
}

WITH_PLACES = {
    aten.max_pool2d_with_indices.default: max_pool_with_places,
    aten.max_pool3d_with_indices.default: max_pool_with_places,
}
"""Decompositions for programs that ask for the places: without, TVM pools itself."""
