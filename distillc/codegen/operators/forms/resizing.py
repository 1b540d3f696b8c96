"""Resizing by two products, with what each place gives to each of the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from distillc.codegen.operators.forms.arithmetic import is_whole

aten = torch.ops.aten


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp_min(0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' kernel (Cubic Convolution Interpolation, equation 15): torch smooths with a = -1/2."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _smooth(
    kernel: Callable[[Tensor], Tensor],
    x: Tensor,
    output_size: Sequence[int],
    align_corners: bool,
    scale_h: float | None = None,
    scale_w: float | None = None,
) -> Tensor:
    """Resize (N, C, H, W) as `torch.nn.functional.interpolate` does with `antialias`."""
    sizes = zip(x.shape[-2:], output_size, (scale_h, scale_w), strict=True)
    rows, columns = (
        _weights(kernel, extent, count, _step(extent, count, align_corners, factor))
        for extent, count, factor in sizes
    )
    return rows.to(x.dtype) @ x @ columns.to(x.dtype).T


def _step(extent: int, count: int, align_corners: bool, factor: float | None) -> float:
    if align_corners:
        return (extent - 1) / (count - 1) if count > 1 else 0.0
    return 1 / factor if factor else extent / count


def _weights(kernel: Callable[[Tensor], Tensor], extent: int, count: int, step: float) -> Tensor:
    """Return the weight of each place in each result, (count, extent)."""
    centre = (torch.arange(count)[:, None] + 0.5) * step
    weights = kernel((torch.arange(extent) + 0.5 - centre).abs() / max(step, 1.0))
    return weights / weights.sum(1, keepdim=True)


def _upsample_nearest(
    x: Tensor, output_size: Sequence[int] | None, factors: Sequence[float] | None
) -> Tensor:
    """Read the places that `torch.nn.functional.interpolate` reads with `nearest`.

    Not implemented where each pixel is repeated, which TVM does alike. Elsewhere it reads the
    pixels whose centres are nearest, and overlooks factors that are not quotients of the sizes.
    """
    counts = _counts(x, output_size, factors)
    sizes = list(zip(x.shape[-2:], counts, factors or (None, None), strict=True))
    # Torch itself copies or doubles wherever the sizes say so, whatever the factor.
    steps = [
        extent / count if count in (extent, 2 * extent) else _step(extent, count, False, factor)
        for extent, count, factor in sizes
    ]
    if all(
        count % extent == 0 and step == extent / count
        for (extent, count, _), step in zip(sizes, steps, strict=True)
    ):
        return NotImplemented
    for axis, (extent, count, _), step in zip((-2, -1), sizes, steps, strict=True):
        places = (torch.arange(count, dtype=torch.float32) * step).to(torch.int64)
        x = torch.index_select(x, axis, places.clamp(max=extent - 1))
    return x


def _upsample_bilinear(
    x: Tensor,
    output_size: Sequence[int] | None,
    align_corners: bool,
    factors: Sequence[float] | None,
) -> Tensor:
    """Resize (N, C, H, W) in ways that TVM lacks.

    It overlooks factors that are not quotients of the sizes, and divides by the distance of the
    outer pixels of a result, which may be one pixel. Whole numbers it cuts where torch rounds.
    """
    if is_whole(x):
        resized = aten.upsample_bilinear2d.vec(x.float(), output_size, align_corners, factors)
        return resized.round().to(x.dtype)
    counts = _counts(x, output_size, factors)
    steps = [
        1.0 if count == extent else _step(extent, count, align_corners, factor)
        for extent, count, factor in zip(x.shape[-2:], counts, factors or (None, None), strict=True)
    ]
    exact = [extent / count for extent, count in zip(x.shape[-2:], counts, strict=True)]
    if 1 not in counts if align_corners else steps == exact:
        return NotImplemented
    first = 0.0 if align_corners else 0.5
    rows, columns = (
        _triangle((torch.arange(extent) - _between(extent, count, step, first)).abs())
        for extent, count, step in zip(x.shape[-2:], counts, steps, strict=True)
    )
    return rows.to(x.dtype) @ x @ columns.to(x.dtype).T


def _between(extent: int, count: int, step: float, first: float) -> Tensor:
    """Return the place between pixels that each result is read from, (count, 1).

    `first` is the place of the first pixel's centre.
    """
    return ((torch.arange(count)[:, None] + first) * step - first).clamp(0, extent - 1)


def _counts(
    x: Tensor, output_size: Sequence[int] | None, factors: Sequence[float] | None
) -> list[int]:
    if output_size is not None:
        return list(output_size)
    return [int(n * factor) for n, factor in zip(x.shape[-2:], factors or (), strict=True)]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten._upsample_bilinear2d_aa.default: partial(_smooth, _triangle),
    aten._upsample_bicubic2d_aa.default: partial(_smooth, _cubic),
    aten.upsample_nearest2d.vec: _upsample_nearest,
    aten.upsample_bilinear2d.vec: _upsample_bilinear,
}
