"""Rain."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from distillc.data.degradations.common import filtered, uniform
from distillc.data.tasks import Degradation


def _line_kernel(length: float, angle: float) -> torch.Tensor:
    """An antialiased line segment of this length (pixels) and angle (radians) from the column."""
    radius = math.ceil(length / 2)
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    row, column = torch.meshgrid(axis, axis, indexing="ij")
    across = (column * math.cos(angle) - row * math.sin(angle)).abs()
    along = (column * math.sin(angle) + row * math.cos(angle)).abs()
    return (1 - across).clamp(0, 1) * (length / 2 + 0.5 - along).clamp(0, 1)


def _derain(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    """Add bright streaks, nearly parallel within an image: sparse drops smeared along a line."""
    degraded = clean.clone()
    for image in degraded:
        angle = math.radians(uniform(generator, -40, 40))
        for _ in range(2):  # two layers: near rain is longer and sparser than far rain
            length = uniform(generator, 7, 31)
            density = uniform(generator, 0.02, 0.12) / length
            drops = torch.rand(1, 1, *image.shape[1:], generator=generator)
            brightness = uniform(generator, 0.4, 0.9)
            tilt = angle + math.radians(uniform(generator, -4, 4))
            streaks = filtered((drops < density).float() * brightness, _line_kernel(length, tilt))
            image += streaks[0].clamp(0, 1) * (1 - image)
    return degraded


DERAIN = Degradation("derain", "adds streaks of rain", _derain)
