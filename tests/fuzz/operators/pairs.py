"""Operators of two values: residuals, gates, joins, cross attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, pair


@pair
def arithmetic(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    ways = {
        "x + y": lambda x, y: x + y,
        "x - y": lambda x, y: x - y,
        "y + x * 0.3": lambda x, y: y + x * 0.3,
        "x * sigmoid(y)": lambda x, y: x * torch.sigmoid(y),
        "x * y": lambda x, y: x * y,
        "x / (1 + |y|)": lambda x, y: x / (1 + y.abs()),
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "where": lambda x, y: torch.where(x > y, x, y * 0.5),
        "lerp": lambda x, y: torch.lerp(x, y, 0.25),
        "addcmul": lambda x, y: torch.addcmul(x, x, y, value=0.5),
        "smaller": lambda x, y: (x < y).to(x.dtype),
        "rsub": lambda x, y: torch.sub(y, x, alpha=2),
        "squared difference": lambda x, y: (x - y) ** 2,
    }
    name = draw.one(*ways)
    return Layer(name, ways[name])


@pair
def add(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    return Layer("x + y", lambda x, y: x + y)


@pair
def resized(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    """A skip connection of a U-shape: the other value at this one's size."""
    mode, join = draw.one("nearest", "bilinear"), draw.chance(0.5)

    def run(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        y = F.interpolate(F.conv2d(y, weight), x.shape[2:], mode=mode)
        return torch.cat([x, y], 1) if join else x + y

    return Layer(
        described("skip connection", {"mode": mode, "cat": join}),
        run,
        draw.weight(x.shape[1], y.shape[1], 1, 1),
    )


@pair
def cat(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    axis = draw.axis(x)
    return Layer(described("cat", {"axis": axis}), lambda x, y: torch.cat([x, y, x], axis))


@pair
def flat_cat(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    return Layer("cat of flat", lambda x, y: torch.cat([x.flatten(), y.flatten()])[None])


@pair
def cross_attention(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    width = draw.some(1, 5)

    def run(x: Tensor, y: Tensor, q: Tensor, k: Tensor) -> Tensor:
        x, y = x.flatten(2)[..., :80].mT, y.flatten(2)[..., :80].mT
        scores = F.linear(x, q) @ F.linear(y, k).mT * width**-0.5
        return scores.softmax(-1) @ y

    return Layer(
        described("cross attention", {"width": width}),
        run,
        draw.weight(width, x.shape[1]),
        draw.weight(width, y.shape[1]),
    )


@pair
def product(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    """A matrix product of two values of the image, whichever way fits."""
    way = draw.one("x @ y", "x @ y.mT", "x.mT @ y", "outer")
    ways = {
        "x @ y": lambda x, y: x @ y / x.shape[-1] ** 0.5,
        "x @ y.mT": lambda x, y: x @ y.mT / x.shape[-1] ** 0.5,
        "x.mT @ y": lambda x, y: x.mT @ y / x.shape[-2] ** 0.5,
        "outer": lambda x, y: torch.outer(x.flatten()[:20], y.flatten()[:20]),
    }
    return Layer(way, ways[way])


@pair
def affine(draw: Draw, x: Tensor, y: Tensor) -> Layer:
    """Feature-wise modulation: scale and shift made of the other value."""
    channels = x.shape[1]

    def run(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        scale, shift = (y.flatten(2).mean(2) @ weight).view(1, -1, 1, 1).chunk(2, 1)
        return x * (1 + scale) + shift

    return Layer("modulation", run, draw.weight(y.shape[1], 2 * channels) / y.shape[1] ** 0.5)
