"""Defocus, as the two halves of a dual-pixel sensor see it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from distillc.data.degradations.common import filtered, uniform
from distillc.data.tasks import Degradation, Planes


def half_disc(radius: float, side: int) -> Tensor:
    """Return the half of a disc that one half of a pixel sees, sum 1.

    Args:
        radius: Of the disc, pixels.
        side: -1 for its left half, 1 for its right one. The middle column counts half in both.
    """
    reach = math.ceil(radius)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float32)
    distance = (axis[:, None].square() + axis.square()).sqrt()
    disc = (radius + 0.5 - distance).clamp(0, 1)
    kernel = disc * (0.5 + 0.5 * side * axis.sign())
    return kernel / kernel.sum()


def _defocus(clean: Tensor, options: Mapping[str, float], generator: torch.Generator) -> Tensor:
    """Blur each image as if all of it had one distance, before or behind the focus."""
    views = []
    for image in clean:
        radius = uniform(generator, 1, options["radius"])
        side = 1 if uniform(generator, -1, 1) > 0 else -1
        left, right = (filtered(image[None], half_disc(radius, each)) for each in (side, -side))
        views.append(torch.cat([left, right], 1))
    return torch.cat(views)


DUAL_PIXEL = Degradation(
    "dual-pixel",
    "defocuses each photograph by one distance, left and right view side by side as 6 channels",
    _defocus,
    {"radius": (8, 1, 32)},
    planes=Planes(given=6, made=3, shrink=1, scale=1, restored=lambda clean: clean),
)
