"""Images of any size through a network of one size: mirrored at the edges, cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillc.errors import UsageError

Image = np.ndarray[Any, Any]

OVERLAP = 32
"""Pixels that neighbouring tiles share, a quarter of smaller ones, unless the caller chooses."""


@dataclass(frozen=True)
class Tiling:
    """Where the tiles of an image lie.

    1. An image that is smaller than a tile is mirrored at its lower and right edges.
    2. Tiles are spread evenly, so that neighbours share at least `overlap` pixels.
    3. Of what two tiles share, the outer quarters are left to the other tile and the half between
       is blended. So the result is what the whole image gives, but for rounding, where an output
       pixel depends on nothing farther than overlap / 4; what looks farther (global attention)
       sees each tile alone, and leaves no edge.

    Attributes:
        image: (H, W) of the image, pixels.
        tile: (H, W) of a tile.
        overlap: Pixels that neighbours share at least.

    Raises:
        UsageError: The overlap is negative, or more than half a tile.
    """

    image: tuple[int, int]
    tile: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= min(self.tile) // 2:
            raise UsageError(
                f"tiles of {self.tile[0]}x{self.tile[1]} cannot overlap by {self.overlap} pixels",
                hint=f"choose 0 to {min(self.tile) // 2}",
            )

    @property
    def origins(self) -> list[tuple[int, int]]:
        """Upper left corner of every tile, row by row."""
        rows, columns = (self._spread(axis) for axis in (0, 1))
        return [(row, column) for row in rows for column in columns]

    def cut(self, image: Image) -> Image:
        """Return the tiles of an image.

        Args:
            image: (1, C, H, W).

        Returns:
            (tiles, C, h, w).
        """
        padded = self._padded()
        missing = [(0, whole - own) for whole, own in zip(padded, self.image, strict=True)]
        image = np.pad(image, [(0, 0), (0, 0), *missing], mode="symmetric")  # rule 1
        height, width = self.tile
        return np.concatenate(
            [image[:, :, top : top + height, left : left + width] for top, left in self.origins]
        )

    def join(self, tiles: Image, scale: int = 1) -> Image:
        """Return the image that processed tiles make.

        Args:
            tiles: (tiles, C, h * scale, w * scale).
            scale: Size of the result over that of the image.

        Returns:
            (1, C, H * scale, W * scale), of the tiles' type.
        """
        height, width = (extent * scale for extent in self._padded())
        total = np.zeros((tiles.shape[1], height, width), np.float64)
        weights = np.zeros((height, width), np.float64)
        for (top, left), tile in zip(self.origins, tiles, strict=True):
            weight = np.outer(self._ramp(0, top, scale), self._ramp(1, left, scale))
            there = (
                slice(top * scale, (top + self.tile[0]) * scale),
                slice(left * scale, (left + self.tile[1]) * scale),
            )
            total[:, *there] += tile * weight
            weights[there] += weight
        height, width = (extent * scale for extent in self.image)
        return (total / weights)[None, :, :height, :width].astype(tiles.dtype)

    def _padded(self) -> Sequence[int]:
        return [max(pair) for pair in zip(self.image, self.tile, strict=True)]

    def _spread(self, axis: int) -> list[int]:
        room = self._padded()[axis] - self.tile[axis]
        steps = -(-room // (self.tile[axis] - self.overlap))  # rule 2
        return [round(room * index / max(1, steps)) for index in range(steps + 1)]

    def _ramp(self, axis: int, origin: int, scale: int) -> Image:
        """Weights along one axis of the tile that begins at `origin` (rule 3)."""
        extent = self.tile[axis] * scale
        quarter = self.overlap * scale / 4
        place = np.arange(extent) + 0.5
        weight = np.ones(extent)
        if self.overlap and origin:
            weight = np.clip((place - quarter) / (2 * quarter), 0, 1)
        if self.overlap and origin + self.tile[axis] < self._padded()[axis]:
            weight = np.minimum(weight, np.clip((extent - place - quarter) / (2 * quarter), 0, 1))
        return weight
