"""Axes of tensors whose elements are channels at pixels, taken apart as far as views split them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple


class Axis(NamedTuple):
    """A part of a dimension: channels or pixels (of scores: also queries or keys), never both."""

    kind: str
    extent: int


CHANNEL, PIXEL, QUERY, KEY = "channel", "pixel", "query", "key"

Dims = tuple[tuple[Axis, ...], ...]
"""The dimensions of a tensor, each as the axes that it is made of; one of extent 1 has none."""


def shape_of(dims: Dims) -> tuple[int, ...]:
    """Return the extents of dimensions."""
    return tuple(prod(axis.extent for axis in dim) for dim in dims)


def flat(dims: Dims) -> list[Axis]:
    """Return all axes in order."""
    return [axis for dim in dims for axis in dim]


def extents_of(axes: Sequence[Axis], *kinds: str) -> tuple[int, ...]:
    """Return the extents of the axes of some kinds, in order."""
    return tuple(axis.extent for axis in axes if axis.kind in kinds)


def only(dim: Sequence[Axis], kind: str) -> bool:
    """Whether all axes of a dimension are of one kind."""
    return all(axis.kind == kind for axis in dim)


def regroup(axes: Sequence[Axis], shape: Sequence[int]) -> Dims | None:
    """Return the axes as dimensions of a reshaped tensor, split where it must be.

    Returns:
        None where a dimension begins or ends inside an axis that it does not divide.
    """
    left, dims = list(axes), []
    for extent in shape:
        dim = []
        while extent > 1:
            if not left:
                return None
            kind, size = left[0]
            if extent % size == 0:
                dim.append(left.pop(0))
                extent //= size
            elif size % extent == 0:
                dim.append(Axis(kind, extent))
                left[0] = Axis(kind, size // extent)
                extent = 1
            else:
                return None
        dims.append(tuple(dim))
    return None if left else tuple(dims)


def order_of(dims: Dims, order: Sequence[int], *kinds: str) -> list[int]:
    """Return how the axes of some kinds are permuted where dimensions are."""
    return [number for dim in order for number in _numbers(dims, dim, kinds)]


def _numbers(dims: Dims, wanted: int, kinds: Sequence[str]) -> Iterator[int]:
    number = 0
    for index, dim in enumerate(dims):
        for axis in dim:
            if axis.kind in kinds:
                if index == wanted:
                    yield number
                number += 1


def common_axes(x: Sequence[Axis], y: Sequence[Axis]) -> tuple[Axis, ...] | None:
    """Return the coarsest axes into which both divide, None where they divide differently."""
    left, right, found = list(x), list(y), []
    while left and right:
        (kind, size), (other, length) = left.pop(), right.pop()
        least = min(size, length)
        if kind != other or size % least or length % least:
            return None
        found.append(Axis(kind, least))
        if size > least:
            left.append(Axis(kind, size // least))
        if length > least:
            right.append(Axis(kind, length // least))
    return None if left or right else tuple(reversed(found))
