"""White noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from distillc.data.tasks import Degradation


def _denoise(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    noise = torch.randn(clean.shape, generator=generator)
    return clean + noise * (options["sigma"] / 255)


DENOISE = Degradation(
    "denoise",
    "adds white noise of deviation sigma / 255, not clipped",
    _denoise,
    {"sigma": (25, 0.1, 255)},
)
