"""Tensors of tokens that are not laid out: an image, and which of its numbers stands where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm import relax

from distillc.codegen.rewrites.image_layout.axes import (
    CHANNEL,
    PIXEL,
    Axis,
    Dims,
    extents_of,
    flat,
    only,
    order_of,
    regroup,
    shape_of,
)
from distillc.codegen.rewrites.walk import extents

Places = np.ndarray


@dataclass(frozen=True)
class Tokens:
    """A tensor whose element at some channel axes c and pixel axes p is image[0, C[c], P[p]].

    Attributes:
        image: (1, channels, H, W); its pixels count in rows.
        dims: The tensor's dimensions.
        channels: C, an integer array; its axes are the channel axes in order.
        pixels: P, likewise.
        factor: What every number is multiplied by.
        view: The call that it was read from, where nothing but views came after an image in memory.
        is_raw: Whether it is such an image itself.
    """

    image: relax.Expr
    dims: Dims
    channels: Places
    pixels: Places
    factor: float = 1.0
    view: relax.Call | None = None
    is_raw: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's extents."""
        return shape_of(self.dims)

    def is_image(self) -> bool:
        """Whether its elements lie in memory as those of the image do."""
        kinds = [axis.kind for axis in flat(self.dims)]
        count = prod(extents(self.image)[2:])
        in_order = is_counting(self.pixels) and self.pixels.size == count
        return kinds == sorted(kinds) and self.is_whole() and in_order

    def is_image_like(self) -> bool:
        """Whether its channels come before its pixels, and these in order: no token order."""
        kinds = [axis.kind for axis in flat(self.dims)]
        if len(set(kinds)) < 2 and self.shape != extents(self.image):
            return False
        return kinds == sorted(kinds) and bool(np.all(np.diff(self.pixels.reshape(-1)) == 1))

    def is_pointwise(self) -> bool:
        """Whether its order is that of tokens, and no dimension mixes channels and pixels."""
        pure = all(len({axis.kind for axis in dim}) < 2 for dim in self.dims)
        return pure and not self.is_image_like()

    def is_whole(self) -> bool:
        """Whether it has all channels of the image, in order."""
        return self.channels.size == extents(self.image)[1] and is_counting(self.channels)

    def is_complete(self) -> bool:
        """Whether it has every pixel of the image once."""
        count = prod(extents(self.image)[2:])
        return self.pixels.size == count and np.array_equal(
            np.sort(self.pixels, axis=None), np.arange(count)
        )

    def reshaped(self, shape: Sequence[int]) -> Tokens | None:
        """Return a reshape, None where it divides an axis unevenly."""
        dims = regroup(flat(self.dims), shape)
        return None if dims is None else split_as(self, dims)

    def permuted(self, order: Sequence[int]) -> Tokens:
        """Return a transposition."""
        return replace(
            self,
            dims=tuple(self.dims[dim] for dim in order),
            channels=self.channels.transpose(order_of(self.dims, order, CHANNEL)),
            pixels=self.pixels.transpose(order_of(self.dims, order, PIXEL)),
        )

    def taken(self, dim: int, places: Places) -> Tokens | None:
        """Return chosen places of a dimension; one number instead of an array drops it."""
        axes = self.dims[dim]
        if not axes and places.size == 1:
            kept = ((),) if places.ndim else ()
            return replace(self, dims=(*self.dims[:dim], *kept, *self.dims[dim + 1 :]))
        if not axes or not (only(axes, CHANNEL) or only(axes, PIXEL)):
            return None
        kind = axes[0].kind
        merged = tuple(
            (Axis(kind, shape_of(self.dims)[dim]),) if index == dim else each
            for index, each in enumerate(self.dims)
        )
        before = sum(axis.kind == kind for axis in flat(self.dims[:dim]))
        new = () if places.ndim == 0 else ((Axis(kind, places.size),) if places.size > 1 else (),)
        dims = (*self.dims[:dim], *new, *self.dims[dim + 1 :])
        array = self.channels if kind == CHANNEL else self.pixels
        array = np.take(array.reshape(extents_of(flat(merged), kind)), places, axis=before)
        array = array.reshape(extents_of(flat(dims), kind))
        if kind == CHANNEL:
            return replace(self, dims=dims, channels=array)
        return replace(self, dims=dims, pixels=array)

    def dim_of(self, kind: str) -> int | None:
        """Return the only dimension with axes of a kind, None where several have some."""
        found = [index for index, dim in enumerate(self.dims) for axis in dim if axis.kind == kind]
        return (
            found[0] if found and len(set(found)) == 1 and only(self.dims[found[0]], kind) else None
        )


def is_counting(places: Places) -> bool:
    """Whether an array is 0, 1, 2, ... in order."""
    return np.array_equal(places.reshape(-1), np.arange(places.size))


def of_image(image: relax.Expr) -> Tokens:
    """Return an image (1, C, H, W) as a tensor that is not laid out."""
    _, channels, *edges = extents(image)
    dims: Dims = (
        (),
        (Axis(CHANNEL, channels),) if channels > 1 else (),
        *((Axis(PIXEL, edge),) if edge > 1 else () for edge in edges),
    )
    return Tokens(
        image,
        dims,
        np.arange(channels).reshape(extents_of(flat(dims), CHANNEL)),
        np.arange(prod(edges)).reshape(extents_of(flat(dims), PIXEL)),
        is_raw=True,
    )


def split_as(tokens: Tokens, dims: Dims) -> Tokens:
    """Return the same numbers in the same order as other dimensions of the same axes, or finer."""
    axes = flat(dims)
    return replace(
        tokens,
        dims=dims,
        channels=tokens.channels.reshape(extents_of(axes, CHANNEL)),
        pixels=tokens.pixels.reshape(extents_of(axes, PIXEL)),
    )


def whole_dims(tokens: Tokens) -> Tokens:
    """Return the same with one axis for each dimension that has axes of one kind."""
    dims = tuple(
        (Axis(dim[0].kind, extent),) if len({axis.kind for axis in dim}) == 1 else dim
        for dim, extent in zip(tokens.dims, tokens.shape, strict=True)
    )
    return split_as(tokens, dims)


def spread_over(constant: Places, dims: Dims) -> Places | None:
    """Return a constant with an axis for each of a tensor's, of extent 1 where it repeats."""
    shape = (*(1 for _ in range(len(dims) - constant.ndim)), *constant.shape)
    split: list[int] = []
    for extent, dim in zip(shape, dims, strict=True):
        if extent == 1:
            split += [1] * len(dim)
        elif extent == prod(axis.extent for axis in dim):
            split += [axis.extent for axis in dim]
        else:
            return None
    return constant.reshape(split)
