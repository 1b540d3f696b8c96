"""Resizing by two products, with what each place gives to each of the results; pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F


def adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
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
    return _bins(height, rows) @ x @ _bins(width, columns).T


def _bins(extent: int, count: int) -> Tensor:
    """Return the share that each place has in each bin's mean, (count, extent)."""
    number, place = torch.arange(count)[:, None], torch.arange(extent)
    first, end = number * extent // count, ((number + 1) * extent + count - 1) // count
    return ((first <= place) & (place < end)).float() / (end - first)


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
    return rows @ x @ columns.T


def _step(extent: int, count: int, align_corners: bool, factor: float | None) -> float:
    if align_corners:
        return (extent - 1) / (count - 1) if count > 1 else 0.0
    return 1 / factor if factor else extent / count


def _weights(kernel: Callable[[Tensor], Tensor], extent: int, count: int, step: float) -> Tensor:
    """Return the weight of each place in each result, (count, extent)."""
    centre = (torch.arange(count)[:, None] + 0.5) * step
    weights = kernel((torch.arange(extent) + 0.5 - centre).abs() / max(step, 1.0))
    return weights / weights.sum(1, keepdim=True)


def upsample_nearest(
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


def upsample_bilinear(
    x: Tensor,
    output_size: Sequence[int] | None,
    align_corners: bool,
    factors: Sequence[float] | None,
) -> Tensor:
    """Resize (N, C, H, W) by factors that are not quotients of the sizes: TVM overlooks these."""
    counts = _counts(x, output_size, factors)
    steps = [
        1.0 if count == extent else _step(extent, count, align_corners, factor)
        for extent, count, factor in zip(x.shape[-2:], counts, factors or (None, None), strict=True)
    ]
    exact = [extent / count for extent, count in zip(x.shape[-2:], counts, strict=True)]
    if align_corners or steps == exact:
        return NotImplemented
    rows, columns = (
        _triangle((torch.arange(extent) - _between(extent, count, step)).abs())
        for extent, count, step in zip(x.shape[-2:], counts, steps, strict=True)
    )
    return rows @ x @ columns.T


def _between(extent: int, count: int, step: float) -> Tensor:
    """Return the place between pixels that each result is read from, (count, 1)."""
    return ((torch.arange(count)[:, None] + 0.5) * step - 0.5).clamp(0, extent - 1)


def _counts(
    x: Tensor, output_size: Sequence[int] | None, factors: Sequence[float] | None
) -> list[int]:
    if output_size is not None:
        return list(output_size)
    return [int(n * factor) for n, factor in zip(x.shape[-2:], factors or (), strict=True)]


def avg_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Divide the sums of windows by a number of the user's, which TVM's importer drops."""
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


upsample_bilinear_aa = partial(_smooth, _triangle)
upsample_bicubic_aa = partial(_smooth, _cubic)
