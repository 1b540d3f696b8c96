"""What is cut out of images: windows at random, and windows that never change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from distillc.data.picture import Array

Pair = tuple[torch.Tensor, torch.Tensor]
"""Degraded (B, C, H, W) and clean (B, C, H * scale, W * scale), float32."""


@dataclass(frozen=True)
class Windows:
    """What is measured of one image.

    Attributes:
        name: The image's name in its folder.
        pairs: Windows of it, degraded (1, C, H, W) and clean (1, C, H * scale, W * scale).
    """

    name: str
    pairs: tuple[Pair, ...]


def seeded(*key: object) -> torch.Generator:
    """Return a generator seeded by a key, so that neighbouring keys give unrelated streams."""
    sha = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(sha[:8], "little", signed=True))


def spread(side: int, edge: int) -> list[int]:
    """Return where windows of this edge begin, each in the middle of its share of the side.

    Two where they fit beside each other, or one; `side` is at least `edge`.
    """
    count = min(2, side // edge)
    return [(2 * index + 1) * side // (2 * count) - edge // 2 for index in range(count)]


def mirror_to(image: Array, size: tuple[int, int]) -> Array:
    """Mirror (C, H, W) at its lower and right edges until it holds (H, W)."""
    missing = [max(0, edge - side) for side, edge in zip(image.shape[1:], size, strict=True)]
    if not any(missing):
        return image
    return np.pad(image, [(0, 0), *((0, each) for each in missing)], mode="symmetric")


def turn(image: torch.Tensor, turns: int) -> torch.Tensor:
    """Apply one of the eight symmetries of the square to (C, H, W)."""
    return torch.rot90(image.flip(2) if turns >= 4 else image, turns % 4, (1, 2))
