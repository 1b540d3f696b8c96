"""Surrogates work on images; these let them stand in for blocks that lay their input out else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import Tensor

from distillc.network import Layout
from distillc.surrogates.stand_in import StandIn


class OnLayout(StandIn):
    """A surrogate of (B, C, H, W) in the place of a block of another layout or more arguments.

    Whatever the block is given besides its input is left unused, but for a pair of sizes whose
    product is the number of tokens: these are H and W.

    Args:
        surrogate: (B, C, H, W) -> the same.
        layout: `"image"` (B, C, H, W), `"channels_last"` (B, H, W, C), `"tokens"` (B, H W, C) or
            `"tokens_first"` (H W, B, C), row by row.
        grid: H and W that were seen, whose ratio tells the sides of other numbers of tokens.
    """

    def __init__(self, surrogate: StandIn, layout: Layout, grid: tuple[int, int]) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.layout = layout
        self.grid = grid

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        image: Tensor = self.surrogate(self._image(x, [*args, *kwargs.values()]))
        if self.layout == "image":
            return image
        if self.layout == "channels_last":
            return image.permute(0, 2, 3, 1)
        rows = image.flatten(2)
        return rows.permute(0, 2, 1) if self.layout == "tokens" else rows.permute(2, 0, 1)

    def calibrate(self, given: Tensor, mixed: Tensor) -> None:
        self.surrogate.calibrate(self._image(given, []), self._image(mixed, []))

    def _image(self, x: Tensor, given: list[Any]) -> Tensor:
        """Return an activation as (B, C, H, W); `given` may hold its sides."""
        if self.layout == "image":
            return x
        if self.layout == "channels_last":
            return x.permute(0, 3, 1, 2)
        rows = x.permute((0, 2, 1) if self.layout == "tokens" else (1, 2, 0))  # (B, C, H W)
        return rows.unflatten(2, self._sides(rows.shape[2], given))

    def _sides(self, tokens: int, given: list[Any]) -> tuple[int, int]:
        for height, width in _pairs(given):
            if height * width == tokens:
                return height, width
        return _nearest_sides(tokens, self.grid)


def find_grid(
    shape: tuple[int, ...], layout: Layout | None, size: tuple[int, int]
) -> tuple[int, int] | None:
    """Return H and W of an activation, None where it has none.

    Args:
        shape: Its shape.
        layout: Its layout; None where that is not known.
        size: (H, W) of the image, whose ratio the grid of tokens must have.
    """
    if layout == "image":
        return shape[2], shape[3]
    if layout == "channels_last":
        return shape[1], shape[2]
    if layout is None:
        return None
    tokens = shape[1] if layout == "tokens" else shape[0]
    height, width = _nearest_sides(tokens, size)
    fits = height * width == tokens and height * size[1] == width * size[0]
    return (height, width) if fits else None


def _nearest_sides(tokens: int, ratio: tuple[int, int]) -> tuple[int, int]:
    """Return the H and W of about so many tokens whose ratio is nearest to this one."""
    height = max(1, round(math.sqrt(tokens * ratio[0] / ratio[1])))
    return height, tokens // height


def _pairs(given: list[Any]) -> Iterator[tuple[int, int]]:
    """Yield every two whole numbers that follow each other among some arguments."""
    flat: list[Any] = []
    for each in given:
        flat += each if isinstance(each, (tuple, list)) else [each]
    for first, second in pairwise(flat):
        if isinstance(first, int) and isinstance(second, int):
            yield first, second
