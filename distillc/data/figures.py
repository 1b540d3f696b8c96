"""Metrics by name: how close a restored image is to the clean one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distillc.data.metrics import finite_psnr, ssim
from distillc.errors import UsageError, named_reason
from distillc.registry import Registry


@dataclass(frozen=True)
class Metric:
    """A figure that reports show beside others.

    Attributes:
        name: Its name, which the manifest has too.
        does: One line for the user.
        measure: (restored, clean), both (1, C, H, W) float32 in [0, 1] on the CPU -> the figure,
            a finite number.
    """

    name: str
    does: str
    measure: Callable[[Tensor, Tensor], float]


PSNR = Metric("psnr", "peak signal-to-noise ratio, dB: limits and the search use it", finite_psnr)
SSIM = Metric("ssim", "structural similarity (Wang et al. 2004), at most 1", ssim)


def _accept(found: Any) -> Metric:
    if not isinstance(found, Metric):
        raise TypeError("it is not a Metric")
    return found


METRICS = Registry("distillc.metrics", "metric", _accept, lambda metric: metric.name)
"""The metrics by name. An entry point names a `Metric`."""


def further_metrics() -> list[Metric]:
    """Return the metrics of other packages, which are measured beside PSNR and SSIM.

    Raises:
        UsageError: One of them cannot be used.
    """
    members, errors = METRICS.load_all()
    if errors:
        raise errors[0]
    return [metric for metric in members.values() if metric not in (PSNR, SSIM)]


def measure(metric: Metric, image: Tensor, reference: Tensor) -> float:
    """Return what a metric says of an image, which is clamped to [0, 1] first.

    Args:
        metric: The metric.
        image: (1, C, H, W) float.
        reference: The clean image, of the same shape.

    Raises:
        UsageError: It raises an error, or gives no finite number.
    """
    try:
        value = float(metric.measure(image.float().clamp(0, 1).cpu(), reference.float().cpu()))
        what = f"gives {value}"
    except Exception as error:  # another package's code may raise anything
        value, what = math.nan, f"fails: {named_reason(error)}"
    if not math.isfinite(value):
        raise UsageError(
            f"the metric {metric.name!r} {what}",
            where=METRICS.entry(metric.name).value,
            hint="update or uninstall its package; finished work is kept",
        )
    return value
