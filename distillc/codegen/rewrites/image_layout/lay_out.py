"""Tokens back to tensors in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from tvm import relax

from distillc.codegen.rewrites.image_layout.axes import CHANNEL, PIXEL, extents_of, flat
from distillc.codegen.rewrites.image_layout.tokens import Places, Tokens, is_counting
from distillc.codegen.rewrites.walk import extents

Emit = Callable[[relax.Expr], relax.Expr]


def dense(tokens: Tokens, emit: Emit) -> Tokens:
    """Return the same with an image of its channels only, in order, and no factor."""
    image, channels = tokens.image, tokens.channels.reshape(-1)
    if not tokens.is_whole():
        first, count = int(channels[0]), channels.size
        if is_counting(channels - first):
            image = emit(
                relax.op.strided_slice(image, [1], [first], [first + count], assume_inbound=True)
            )
        else:
            image = emit(relax.op.take(image, relax.const(channels), axis=1, mode="fast"))
    if tokens.factor != 1:
        image = emit(relax.op.multiply(image, relax.const(tokens.factor, "float32")))
    counting = np.arange(channels.size).reshape(tokens.channels.shape)
    return replace(tokens, image=image, channels=counting, factor=1.0, view=None)


def lay_out(tokens: Tokens, emit: Emit) -> relax.Expr:
    """Return the tensor: views of the image and a transposition, or looked up pixel by pixel."""
    tokens = dense(tokens, emit)
    if tokens.is_image():
        return _reshape(tokens.image, tokens.shape, emit)
    axes = flat(tokens.dims)
    channels, pixels = extents_of(axes, CHANNEL), extents_of(axes, PIXEL)
    order = _order_in_memory(tokens.pixels, prod(extents(tokens.image)[2:]))
    if order is None:
        rows = _reshape(tokens.image, (prod(channels), -1), emit)
        places = relax.const(tokens.pixels.reshape(-1).astype("int64"))
        rows = emit(relax.op.take(rows, places, axis=1, mode="fast"))
        order = list(range(len(pixels)))
    else:
        rows = tokens.image
    split = _reshape(rows, (*channels, *(pixels[number] for number in order)), emit)
    found = {CHANNEL: iter(range(len(channels))), PIXEL: iter(range(len(pixels)))}
    where = [(axis.kind, next(found[axis.kind])) for axis in axes]
    places = [
        number if kind == CHANNEL else len(channels) + order.index(number) for kind, number in where
    ]
    if places != sorted(places):
        split = emit(relax.op.permute_dims(split, places))
    return _reshape(split, tokens.shape, emit)


def gather_pixels(image: relax.Expr, places: Places, like: relax.Expr, emit: Emit) -> relax.Expr:
    """Return an image with its pixels at other places, of the size of another one."""
    rows = _reshape(image, (extents(image)[1], -1), emit)
    rows = emit(relax.op.take(rows, relax.const(places.astype("int64")), axis=1, mode="fast"))
    return _reshape(rows, (1, extents(image)[1], *extents(like)[2:]), emit)


def _reshape(x: relax.Expr, shape: tuple[int, ...], emit: Emit) -> relax.Expr:
    if -1 in shape:
        size = prod(extents(x)) // -prod(shape)
        shape = tuple(size if extent == -1 else extent for extent in shape)
    return x if extents(x) == tuple(shape) else emit(relax.op.reshape(x, shape))


def _order_in_memory(places: Places, pixels: int) -> list[int] | None:
    """Return the axes of an array of places from the outermost to the contiguous one.

    None where it is more than the transposition of a view of all pixels.
    """
    if places.size != pixels:
        return None
    strides = [int(places.take(1, axis).flat[0] - places.flat[0]) for axis in range(places.ndim)]
    order = sorted(range(places.ndim), key=lambda axis: -strides[axis])
    counting = np.transpose(places, order)
    return order if is_counting(counting) else None
