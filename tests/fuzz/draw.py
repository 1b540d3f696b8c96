"""Random choices that a seed decides, and the layers that they make."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
SCALES = (0.0, 1e-40, 1e-5, 0.1, 10.0)
"""Odd scales of weights: zeros, denormal, tiny, large."""


class Layer(nn.Module):
    """One step of a random network: a function of earlier values and of weights of its own.

    Args:
        text: What it does, for people.
        function: Called with the values, then the weights.
        weights: float32; they follow `.double()`.

    Attributes:
        family: What it is drawn with; `""` for operators of two tensors.
    """

    family = ""

    def __init__(self, text: str, function: Callable[..., Tensor], *weights: Tensor) -> None:
        super().__init__()
        self.text = text
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(each, False) for each in weights)

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values, *self.weights)


class Draw:
    """A source of choices, equal for equal seeds.

    Args:
        seed: Any number.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(self.random.getrandbits(62))

    def one(self, *options: T) -> T:
        return self.random.choice(options)

    def some(self, least: int, most: int) -> int:
        return self.random.randint(least, most)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def real(self, least: float, most: float) -> float:
        return round(self.random.uniform(least, most), 3)

    def divisor(self, number: int) -> int:
        return self.one(*(each for each in range(1, number + 1) if number % each == 0))

    def axis(self, x: Tensor) -> int:
        """Return an axis of a tensor, counted from the front or from the back."""
        return self.some(-x.dim(), x.dim() - 1)

    def order(self, count: int) -> list[int]:
        return self.random.sample(range(count), count)

    def shape(self, size: int, rank: int) -> list[int]:
        """Return a shape of so many elements."""
        extents = []
        for _ in range(rank - 1):
            extents.append(self.divisor(size // math.prod(extents)))
        extents.append(size // math.prod(extents))
        self.random.shuffle(extents)
        return extents

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=self.generator)

    def weight(self, *shape: int) -> Tensor:
        """Return weights that keep the size of what they multiply; now and then of an odd scale."""
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
        scale = self.one(*SCALES) if self.chance(0.06) else 1 / math.sqrt(fan_in)
        return self.normal(*shape, scale=scale)

    def near_one(self, *shape: int) -> Tensor:
        return 1 + self.normal(*shape, scale=0.2)


Operator = Callable[..., Layer]
"""(Draw, Tensor, ...) -> Layer for these tensors; what torch then refuses is drawn again."""

FAMILIES: dict[str, list[Operator]] = {}
"""Operators of one tensor by family."""
PAIRS: list[Operator] = []
"""Operators of two tensors."""


def operator(family: str, often: int = 1) -> Callable[[Operator], Operator]:
    """Register an operator of one tensor that is drawn so often as others of its family."""

    def register(function: Operator) -> Operator:
        @functools.wraps(function)
        def of_family(draw: Draw, x: Tensor) -> Layer:
            layer = function(draw, x)
            layer.family = family
            return layer

        FAMILIES.setdefault(family, []).extend([of_family] * often)
        return function

    return register


def pair(function: Operator) -> Operator:
    """Register an operator of two tensors."""
    PAIRS.append(function)
    return function


def described(name: str, given: dict[str, Any]) -> str:
    """Return a call as text."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in given.items())})"


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
