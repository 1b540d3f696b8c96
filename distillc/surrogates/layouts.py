"""Surrogates work on images; these let them stand in for blocks that lay their input out else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

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

    def __init__(self, surrogate: nn.Module, layout: Layout, grid: tuple[int, int]) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.layout = layout
        self.grid = grid

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        image: Tensor
        if self.layout == "image":
            image = self.surrogate(x)
            return image
        if self.layout == "channels_last":
            image = self.surrogate(x.permute(0, 3, 1, 2))
            return image.permute(0, 2, 3, 1)
        order = (0, 2, 1) if self.layout == "tokens" else (1, 2, 0)
        rows = x.permute(order)  # (B, C, H W)
        sides = self._sides(rows.shape[2], [*args, *kwargs.values()])
        rows = self.surrogate(rows.unflatten(2, sides)).flatten(2)
        return rows.permute(0, 2, 1) if self.layout == "tokens" else rows.permute(2, 0, 1)

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
