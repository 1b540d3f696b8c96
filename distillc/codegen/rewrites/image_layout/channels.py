"""Operators along the channels of every pixel, and concatenations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from tvm import relax

from distillc.codegen.rewrites.image_layout.axes import CHANNEL, PIXEL, Axis, extents_of, flat, only
from distillc.codegen.rewrites.image_layout.lay_out import Emit, dense
from distillc.codegen.rewrites.image_layout.tokens import Places, Tokens, split_as, whole_dims
from distillc.codegen.rewrites.walk import extents


def layer_norm(
    call: relax.Call, tokens: Tokens, scale: Places, shift: Places, emit: Emit
) -> Tokens | None:
    """Normalise the channels of each pixel, in two passes."""
    last = len(tokens.dims) - 1
    if [int(axis) % len(tokens.dims) for axis in call.attrs.axes] != [last]:
        return None
    if tokens.dim_of(CHANNEL) != last:
        return None
    tokens = dense(tokens, emit)
    op, x = relax.op, tokens.image
    centred = emit(op.subtract(x, emit(op.mean(x, [1], keepdims=True))))
    variance = emit(op.mean(emit(op.multiply(centred, centred)), [1], keepdims=True))
    deviation = emit(op.rsqrt(emit(op.add(variance, relax.const(call.attrs.epsilon, "float32")))))
    x = emit(op.multiply(centred, deviation))
    x = emit(op.multiply(x, _of_channels(scale)))
    return replace(tokens, image=emit(op.add(x, _of_channels(shift))))


def _of_channels(values: Places) -> relax.Expr:
    return relax.const(np.ascontiguousarray(values.reshape(1, -1, 1, 1)))


def product(tokens: Tokens, weight: Places, emit: Emit) -> Tokens | None:
    """Multiply the channels of each pixel by a matrix (channels, outputs)."""
    last = len(tokens.dims) - 1
    if weight.ndim != 2 or tokens.dim_of(CHANNEL) != last:
        return None
    tokens = dense(tokens, emit)
    outputs = weight.shape[1]
    kernel = relax.const(np.ascontiguousarray(weight.T[:, :, None, None]))
    return replace(
        tokens,
        image=emit(relax.op.nn.conv2d(tokens.image, kernel)),
        dims=(*tokens.dims[:last], (Axis(CHANNEL, outputs),) if outputs > 1 else ()),
        channels=np.arange(outputs).reshape((outputs,) if outputs > 1 else ()),
    )


def reduce_channels(
    operator: Callable[..., relax.Expr], tokens: Tokens, dims: Sequence[int], keep: bool, emit: Emit
) -> Tokens | None:
    """Reduce some dimensions that are channels."""
    if not all(tokens.dims[dim] and only(tokens.dims[dim], CHANNEL) for dim in dims):
        return None
    tokens = dense(tokens, emit)
    goes = [
        index in dims
        for index, dim in enumerate(tokens.dims)
        for axis in dim
        if axis.kind == CHANNEL
    ]
    left = [
        () if index in dims else dim
        for index, dim in enumerate(tokens.dims)
        if keep or index not in dims
    ]
    channels = extents_of(flat(tuple(left)), CHANNEL)
    height_width = extents(tokens.image)[2:]
    if all(goes):
        image = emit(operator(tokens.image, [1], keepdims=True))
    else:
        split = emit(relax.op.reshape(tokens.image, (*tokens.channels.shape, prod(height_width))))
        axes = [number for number, reduced in enumerate(goes) if reduced]
        image = emit(operator(split, axes, keepdims=False))
        image = emit(relax.op.reshape(image, (1, prod(channels), *height_width)))
    return replace(
        tokens,
        image=image,
        dims=tuple(left),
        channels=np.arange(prod(channels)).reshape(channels),
    )


def join(parts: Sequence[Tokens], dim: int, emit: Emit) -> Tokens | None:
    """Concatenate channels of the same pixels, or pixels of the same image."""
    kinds = {axis.kind for part in parts for axis in part.dims[dim]}
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    merged = [_with_axis(whole_dims(part), dim, kind) for part in parts]
    first = merged[0]
    others = {part.dims[:dim] + part.dims[dim + 1 :] for part in merged}
    if len(others) > 1:
        return None
    total = sum(part.dims[dim][0].extent for part in merged)
    dims = (*first.dims[:dim], (Axis(kind, total),), *first.dims[dim + 1 :])
    before = sum(axis.kind == kind for axis in flat(first.dims[:dim]))
    if kind == PIXEL:
        same = all(
            part.image.same_as(first.image)
            and part.factor == first.factor
            and np.array_equal(part.channels, first.channels)
            for part in merged
        )
        pixels = np.concatenate([part.pixels for part in merged], before)
        return replace(first, dims=dims, pixels=pixels, view=None) if same else None
    if first.dim_of(CHANNEL) != dim:
        return None
    if not all(np.array_equal(part.pixels, first.pixels) for part in merged):
        return None
    if len({extents(part.image)[2:] for part in merged}) > 1:
        return None
    images = [dense(part, emit).image for part in merged]
    return replace(
        first,
        image=emit(relax.op.concat(images, 1)),
        dims=dims,
        channels=np.arange(total),
        factor=1.0,
        view=None,
    )


def _with_axis(tokens: Tokens, dim: int, kind: str) -> Tokens:
    """Give a dimension of extent 1 an axis."""
    axes = tokens.dims[dim] or (Axis(kind, 1),)
    return split_as(tokens, (*tokens.dims[:dim], axes, *tokens.dims[dim + 1 :]))
