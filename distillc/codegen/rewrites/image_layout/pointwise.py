"""Operators that treat every pixel alike: computed on images, whatever order the tokens have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from tvm import relax

from distillc.codegen.rewrites.image_layout.axes import (
    CHANNEL,
    PIXEL,
    Dims,
    common_axes,
    extents_of,
    flat,
)
from distillc.codegen.rewrites.image_layout.lay_out import Emit, dense, gather_pixels
from distillc.codegen.rewrites.image_layout.tokens import Places, Tokens, split_as, spread_over
from distillc.codegen.rewrites.walk import extents


def of_each(call: relax.Call, tokens: Tokens, emit: Emit) -> Tokens:
    """Apply an operator of one tensor to every number."""
    tokens = dense(tokens, emit)
    image = emit(relax.Call(call.op, [tokens.image, *call.args[1:]], call.attrs, call.ty_args))
    return replace(tokens, image=image)


def with_constant(
    operator: Callable[..., relax.Expr], tokens: Tokens, constant: Places, swapped: bool, emit: Emit
) -> Tokens | None:
    """Combine with a constant that repeats along axes of extent 1, or is missing them."""
    if constant.ndim > len(tokens.dims):
        return None
    spread = spread_over(constant, tokens.dims)
    if spread is None:
        return None
    tokens = dense(tokens, emit)
    axes = flat(tokens.dims)
    kinds = [axis.kind for axis in axes]
    by_pixel = any(
        kind == PIXEL and extent > 1 for kind, extent in zip(kinds, spread.shape, strict=True)
    )
    order = sorted(range(len(axes)), key=lambda number: kinds[number])
    channels = [axes[number].extent for number in order if kinds[number] == CHANNEL]
    pixels = [axes[number].extent for number in order if kinds[number] == PIXEL]
    spread = spread.transpose(order)
    if not by_pixel:
        spread = np.broadcast_to(spread, (*channels, *(1 for _ in pixels)))
        value = spread.reshape(-1, 1, 1)
        value = value[:1].reshape(()) if np.all(value == value[:1]) else value[None]
    elif tokens.is_complete():
        rows = np.broadcast_to(spread, (*channels, *pixels)).reshape(prod(channels), -1)
        value = np.empty_like(rows)
        value[:, tokens.pixels.reshape(-1)] = rows
        value = value.reshape(extents(tokens.image))
    else:
        return None
    other = relax.const(np.array(value, order="C"), str(constant.dtype))
    operands = (other, tokens.image) if swapped else (tokens.image, other)
    return replace(tokens, image=emit(operator(*operands)))


def together(
    operator: Callable[..., relax.Expr], a: Tokens, b: Tokens, emit: Emit
) -> Tokens | None:
    """Combine two tensors of tokens, number by number; dimensions of extent 1 repeat."""
    refined = _refine(a.dims, b.dims)
    if refined is None:
        return None
    dims, pair = refined
    a, b = (dense(split_as(each, own), emit) for each, own in zip((a, b), pair, strict=True))
    full = extents_of(flat(dims), PIXEL)
    if any(each.pixels.shape != full and _pixel_count(each) > 1 for each in (a, b)):
        return None
    leader = max(a, b, key=lambda each: (each.pixels.size, _in_order(each)))
    moved = [placed for each in (a, b) if (placed := _moved(each, leader, emit)) is not None]
    if leader.pixels.shape != full or len(moved) < 2:
        return None
    axes = [axis for axis in flat(dims) if axis.kind == CHANNEL]
    count = prod(axis.extent for axis in axes)
    images = [each.image for each in moved]
    if any(extents(image)[1] not in (1, count) for image in images):
        images = [
            emit(relax.op.reshape(each.image, (*_channel_extents(dims, own), _pixel_count(each))))
            for each, own in zip(moved, pair, strict=True)
        ]
    image = emit(operator(*images))
    wanted = (1, count, *extents(leader.image)[2:])
    return Tokens(
        image if extents(image) == wanted else emit(relax.op.reshape(image, wanted)),
        dims,
        np.arange(count).reshape([axis.extent for axis in axes]),
        leader.pixels,
    )


def _refine(a: Dims, b: Dims) -> tuple[Dims, tuple[Dims, Dims]] | None:
    """Return the dimensions of two tensors combined, and those of each, split alike."""
    if len(a) != len(b):
        return None
    both, first, second = [], [], []
    for x, y in zip(a, b, strict=True):
        split = x or y
        if x and y:
            finer = common_axes(x, y)
            if finer is None:
                return None
            split = finer
        both.append(split)
        first.append(split if x else ())
        second.append(split if y else ())
    return tuple(both), (tuple(first), tuple(second))


def _pixel_count(tokens: Tokens) -> int:
    return prod(extents(tokens.image)[2:])


def _in_order(tokens: Tokens) -> bool:
    return bool(np.all(np.diff(tokens.pixels.reshape(-1)) == 1))


def _moved(tokens: Tokens, leader: Tokens, emit: Emit) -> Tokens | None:
    """Return tokens with their pixels where those of others lie."""
    if tokens is leader or _pixel_count(tokens) == 1:
        return tokens
    same = extents(tokens.image)[2:] == extents(leader.image)[2:]
    if np.array_equal(tokens.pixels, leader.pixels) and _pixel_count(tokens) == _pixel_count(
        leader
    ):
        shape = (1, extents(tokens.image)[1], *extents(leader.image)[2:])
        return (
            tokens if same else replace(tokens, image=emit(relax.op.reshape(tokens.image, shape)))
        )
    if not leader.is_complete():
        return None
    places = np.empty(leader.pixels.size, "int64")
    places[leader.pixels.reshape(-1)] = tokens.pixels.reshape(-1)
    return replace(
        tokens,
        image=gather_pixels(tokens.image, places, leader.image, emit),
        pixels=leader.pixels,
    )


def _channel_extents(dims: Dims, own: Dims) -> tuple[int, ...]:
    """Return the extents of all channel axes, 1 of those that a tensor does not have."""
    return tuple(
        axis.extent if mine else 1
        for dim, mine in zip(dims, own, strict=True)
        for axis in dim
        if axis.kind == CHANNEL
    )
