"""Camera shake."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from distillc.data.degradations.common import filtered, uniform
from distillc.data.tasks import Degradation


def _motion_kernel(generator: torch.Generator) -> torch.Tensor:
    """A camera-shake kernel: a smooth random path, splatted bilinearly on a grid, sum 1."""
    points, extent = 96, uniform(generator, 5, 21)
    turns = torch.randn(points, generator=generator).cumsum(0) * 0.12
    heading = turns + uniform(generator, 0, 2 * math.pi)
    path = torch.stack([heading.sin(), heading.cos()]).cumsum(1)
    path -= path.mean(1, keepdim=True)
    path *= extent / 2 / path.abs().max()
    radius = math.ceil(extent / 2) + 1
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    rows = (1 - (axis[:, None] - path[0]).abs()).clamp(min=0)
    columns = (1 - (axis[:, None] - path[1]).abs()).clamp(min=0)
    kernel = rows @ columns.T
    return kernel / kernel.sum()


def _deblur(
    clean: torch.Tensor, options: Mapping[str, float], generator: torch.Generator
) -> torch.Tensor:
    return torch.cat([filtered(image[None], _motion_kernel(generator)) for image in clean])


DEBLUR = Degradation("deblur", "blurs each image along a path of its own", _deblur)
