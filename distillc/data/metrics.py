"""How close two images, or two feature maps, are."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from skimage.metrics import structural_similarity
from torch import nn

from distillc.data.windows import Pair, mirror_to


def psnr(image: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB, both clamped to [0, 1].

    Args:
        image: Any shape, float.
        reference: The same shape.

    Returns:
        Infinity when the two are equal.
    """
    difference = image.double().clamp(0, 1) - reference.double().clamp(0, 1)
    error = difference.square().mean().item()
    return -10 * math.log10(error) if error else math.inf


MOST_PSNR = 999.0
"""dB; that of equal images is infinite, which no JSON file can hold."""


def finite_psnr(image: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the PSNR in dB, `MOST_PSNR` at most; see `psnr`."""
    return min(psnr(image, reference), MOST_PSNR)


EQUAL = 100.0
"""What two equal images count in a mean, dB: infinity would hide all others."""


def average_psnr(values: Iterable[float]) -> float:
    """Return the mean of PSNRs in dB, each `EQUAL` at most; NaN where one is."""
    capped = [value if math.isnan(value) else min(value, EQUAL) for value in values]
    return sum(capped) / len(capped)


@torch.no_grad()
def mean_psnr(module: nn.Module, pairs: Iterable[Pair], device: str = "cpu") -> float:
    """Return the mean PSNR of a module's outputs, each `EQUAL` at most, dB; NaN where one is.

    Args:
        module: On the device.
        pairs: (degraded, clean) images, (1, C, H, W) float32.
        device: Torch device.
    """
    return average_psnr(psnr(module(degraded.to(device)).cpu(), clean) for degraded, clean in pairs)


WINDOW = 11
"""Edge of SSIM's window, pixels."""


def ssim(image: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the structural similarity, both clamped to [0, 1].

    Gaussian window of sigma 1.5, mean over channels: the settings of Wang et al. 2004. Images that
    are smaller than the window are mirrored to fill it.

    Args:
        image: (C, H, W) or (1, C, H, W) float.
        reference: The same shape.
    """
    first, second = (
        mirror_to(
            each.detach().float().clamp(0, 1).cpu().reshape(each.shape[-3:]).numpy(),
            (WINDOW, WINDOW),
        )
        for each in (image, reference)
    )
    return float(
        structural_similarity(
            first,
            second,
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


TOLERANCE = 1e-4
"""Largest `largest_error` of two float32 forms of one network."""


def largest_error(output: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest absolute difference; where values are above 1, as a share of the largest.

    Args:
        output: Any shape, float.
        wanted: The same shape.
    """
    return float((output - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))
