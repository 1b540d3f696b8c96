"""What a sensor behind a Bayer filter sees, as the four planes that networks take."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from distillc.data.tasks import Degradation, Planes


def pack(images: Tensor) -> Tensor:
    """Return (B, 4, H / 2, W / 2) of (B, 3, H, W): of each 2x2 pixels R, G, G and B (RGGB)."""
    red, green, blue = images.unbind(1)
    planes = [red[:, ::2, ::2], green[:, ::2, 1::2], green[:, 1::2, ::2], blue[:, 1::2, 1::2]]
    return torch.stack(planes, 1)


def linear(images: Tensor) -> Tensor:
    """Return the light that sRGB numbers in [0, 1] stand for, as IEC 61966-2-1 has it."""
    return torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055) ** 2.4)


def _demosaic(clean: Tensor, options: Mapping[str, float], generator: torch.Generator) -> Tensor:
    planes = pack(clean)
    noise = torch.randn(planes.shape, generator=generator)
    return planes + noise * (options["sigma"] / 255)


def _raw(clean: Tensor, options: Mapping[str, float], generator: torch.Generator) -> Tensor:
    """Shot noise, whose variance grows with the light, and read noise, which is always there."""
    planes = _packed_light(clean)
    deviation = (options["shot"] * planes + options["read"] ** 2).sqrt()
    return planes + torch.randn(planes.shape, generator=generator) * deviation


def _packed_light(clean: Tensor) -> Tensor:
    return pack(linear(clean))


DEMOSAIC = Degradation(
    "demosaic",
    "packs photographs into Bayer planes (RGGB) with white noise, to be made RGB of their size",
    _demosaic,
    {"sigma": (5, 0, 255)},
    planes=Planes(given=4, made=3, shrink=2, scale=2, restored=lambda clean: clean),
)

RAW = Degradation(
    "raw",
    "packs photographs, made linear, into Bayer planes (RGGB) with shot and read noise",
    _raw,
    {"shot": (0.01, 0, 1), "read": (0.02, 0, 1)},
    planes=Planes(given=4, made=4, shrink=2, scale=1, restored=_packed_light),
)
