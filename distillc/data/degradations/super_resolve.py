"""Small images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from distillc.data.tasks import Degradation


def _super_resolve(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    scale = int(options["scale"])
    size = (clean.shape[2] // scale, clean.shape[3] // scale)
    small = F.interpolate(clean, size, mode="bicubic", antialias=True, align_corners=False)
    return small.clamp(0, 1)


SR = Degradation(
    "sr",
    "makes images smaller, bicubic with antialiasing",
    _super_resolve,
    {"scale": (2, 2, 8)},
    integral=True,
)
