"""What degradations share."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Return a random number from `low` to `high`."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def filtered(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolve every channel of (B, C, H, W) with one odd (k, k) kernel, edges repeated."""
    channels, pad = images.shape[1], kernel.shape[-1] // 2
    weight = kernel.expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(images, (pad,) * 4, mode="replicate"), weight, groups=channels)
