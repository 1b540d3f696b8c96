"""Pooling to a given size, where bins overlap and differ in size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Average bins, as `torch.nn.functional.adaptive_avg_pool2d` does, by two products.

    Args:
        x: (..., H, W).
        output_size: Rows and columns of bins.

    Returns:
        (..., rows, columns); not implemented where bins divide the image, which TVM pools itself.
    """
    (height, width), (rows, columns) = x.shape[-2:], output_size
    if height % rows == 0 and width % columns == 0:
        return NotImplemented
    return _shares(height, rows) @ x @ _shares(width, columns).T


def _shares(extent: int, bins: int) -> Tensor:
    """Return what each place has of each bin's mean, (bins, extent)."""
    number, place = torch.arange(bins)[:, None], torch.arange(extent)
    first, end = number * extent // bins, ((number + 1) * extent + bins - 1) // bins
    return ((first <= place) & (place < end)).float() / (end - first)
