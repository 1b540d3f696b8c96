"""Resizing by two products, with what each place gives to each of the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor


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


upsample_bilinear_aa = partial(_smooth, _triangle)
upsample_bicubic_aa = partial(_smooth, _cubic)
