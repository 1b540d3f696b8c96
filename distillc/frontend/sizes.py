"""Which sizes of images a network takes, found by trying."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from distillc.frontend.cost import on_meta
from distillc.frontend.outputs import tensors, whole_scale

SQUARES = (
    *(48, 56, 60, 64, 72, 80, 88, 96, 100, 104, 112, 128, 136, 144, 160, 176, 192, 200, 208),
    *(224, 240, 288, 320, 336, 352, 384, 400, 416, 448, 480, 512),
)
"""Squares that a network is tried at when none is known that it takes.

Each multiple that windows and strides come to (2 to 17 pixels, made smaller a few times) divides
one of them.
"""

LARGEST_MULTIPLE = 512

SMALLEST_EDGE = 16
"""Smaller images vanish in networks that halve them a few times."""

MOST_PIXELS = 64 * 96
"""Larger images are tried without values, which takes the same time at all sizes."""


@dataclass(frozen=True)
class SizeRule:
    """What height and width must be: multiples of a number, and equal if `square`."""

    multiple: int
    square: bool = False


def find_sizes(module: nn.Module, example: Tensor) -> SizeRule | None:
    """Return what the sizes of a network's images must be, None where only the example's will do.

    Args:
        module: It takes the example.
        example: (1, C, H, W); the multiple divides H and W.
    """
    return _Trials(module, example.shape[1], (example.shape[2], example.shape[3])).sizes()


def find_edge(module: nn.Module, channels: int) -> int | None:
    """Return the edge of the first square of `SQUARES` that a network takes; None if it takes none.

    Args:
        module: A network that does not take the size that was asked for.
        channels: Of its images.
    """
    trials = _Trials(module, channels)
    return next((edge for edge in SQUARES if trials.takes(edge, edge)), None)


class _Trials:
    """Runs of a network at several sizes.

    Args:
        module: The network.
        channels: Of its images.
        taken: (H, W) that it takes, where one is known.
    """

    def __init__(
        self, module: nn.Module, channels: int, taken: tuple[int, int] | None = None
    ) -> None:
        self.module = module
        self.channels = channels
        self.taken = taken

    def sizes(self) -> SizeRule | None:
        """Find the smallest multiple that images with two edges need, or else squares."""
        assert self.taken is not None
        common = math.gcd(*self.taken)
        multiples = [
            each
            for each in range(1, LARGEST_MULTIPLE + 1)
            # What takes no small images takes those of a higher power of two.
            if common % each == 0 or (each & (each - 1) == 0 and each <= 128)
        ]
        if found := next(filter(self._takes_any, multiples), None):
            return None if self._counts_pixels(found) else SizeRule(found)
        if self.taken[0] != self.taken[1]:
            return None
        found = next(filter(self._takes_squares, multiples), None)
        return SizeRule(found, square=True) if found else None

    def _takes_any(self, multiple: int) -> bool:
        """Whether any edges of this multiple will do, which two that share no larger one show."""
        more, less = _edges(multiple)
        return self.takes(more, less) and self.takes(less, more)

    def _counts_pixels(self, multiple: int) -> bool:
        """Whether sizes of other multiples, but as many pixels, will do.

        So it is where an exporter has fixed masks for one size, and they are laid over as many
        windows as there are: what comes out is an image, and wrong.
        """
        more, less = _edges(multiple)
        for prime in (2, 3, 5, 7, 11, 13):
            if multiple % prime == 0:
                wide, narrow = more * less // multiple * prime, multiple // prime
                # Both, for height and width may need different multiples.
                if self.takes(wide, narrow) and self.takes(narrow, wide):
                    return True
        return False

    def _takes_squares(self, multiple: int) -> bool:
        return all(self.takes(edge, edge) for edge in _edges(multiple))

    def takes(self, height: int, width: int) -> bool:
        """Whether the network returns an image for one of this size."""
        shape = (1, self.channels, height, width)
        if height * width > MOST_PIXELS and self._twin is not None:
            return returns_image(self._twin, torch.empty(shape, device="meta"))
        return returns_image(self.module, torch.zeros(shape))

    @cached_property
    def _twin(self) -> nn.Module | None:
        """The network without values; None where it does not even take what the network takes."""
        shape = (1, self.channels, *(self.taken or (SQUARES[0], SQUARES[0])))
        try:
            twin, (image,) = on_meta(self.module, [shape])
        except Exception:  # what cannot be copied
            return None
        return twin if self.taken is None or returns_image(twin, image) else None


def _edges(multiple: int) -> tuple[int, int]:
    """Return two small edges whose largest common divisor is the multiple."""
    count = max(2, -(-SMALLEST_EDGE // multiple))
    return multiple * (count + 1), multiple * count


def returns_image(module: nn.Module, image: Tensor) -> bool:
    """Whether a network runs on an image (1, C, H, W), and an image is in what it returns."""
    try:
        with torch.no_grad():
            output = module(image)
    except Exception:
        return False
    return any(whole_scale(image.shape, each) is not None for _, each in tensors(output))
