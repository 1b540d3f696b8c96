"""Scores of attention that are not computed yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tvm import relax

from distillc.codegen.rewrites.image_layout.axes import (
    CHANNEL,
    KEY,
    PIXEL,
    QUERY,
    Axis,
    Dims,
    common_axes,
    extents_of,
    flat,
    only,
    order_of,
    regroup,
    shape_of,
)
from distillc.codegen.rewrites.image_layout.lay_out import Emit, lay_out
from distillc.codegen.rewrites.image_layout.tokens import Places, Tokens, split_as, spread_over
from distillc.codegen.rewrites.walk import extents

log = logging.getLogger(__name__)

LEAST_FILL = -1e4
"""A score below it has no weight: e to its power is 0 beside any other."""

KINDS = (PIXEL, CHANNEL, QUERY, KEY)


@dataclass(frozen=True)
class Scores:
    """q kT times a scale, plus terms; after a softmax over the keys, if it is done.

    Attributes:
        q: (batch, queries, depth): axes of pixels are windows, axes of channels heads.
        k: (batch, keys, depth).
        dims: The dimensions of the tensor; their axes are the batch's, queries', keys'.
        scale: What q kT is multiplied by: axes of the heads, of extent 1 where all are equal.
        terms: What is added, each with as many axes as `dims`, of extent 1 where it repeats.
        softmax: Whether it is done.
    """

    q: Tokens
    k: Tokens
    dims: Dims
    scale: Places
    terms: tuple[Places, ...] = ()
    softmax: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's extents."""
        return shape_of(self.dims)

    def reshaped(self, shape: Sequence[int]) -> Scores | None:
        """Return a reshape, None where it divides an axis unevenly."""
        dims = regroup(flat(self.dims), shape)
        if dims is None:
            return None
        old, new = flat(self.dims), flat(dims)
        scale = [n for n, axis in zip(self.spread_scale, old, strict=True) if axis.kind == CHANNEL]
        channels = [axis for axis in old if axis.kind == CHANNEL]
        finer = [axis for axis in new if axis.kind == CHANNEL]
        return replace(
            self,
            dims=dims,
            scale=self.scale.reshape(_split_extents(scale, channels, finer)),
            terms=tuple(term.reshape(_split_extents(term.shape, old, new)) for term in self.terms),
        )

    @property
    def spread_scale(self) -> tuple[int, ...]:
        """The extents of the scale along all axes."""
        extents = iter(self.scale.shape)
        return tuple(next(extents) if axis.kind == CHANNEL else 1 for axis in flat(self.dims))

    def permuted(self, order: Sequence[int]) -> Scores | None:
        """Return a transposition that leaves windows, heads, queries and keys in their orders."""
        for kind in KINDS:
            numbers = order_of(self.dims, order, kind)
            if numbers != sorted(numbers):
                return None
        axes = order_of(self.dims, order, *KINDS)
        return replace(
            self,
            dims=tuple(self.dims[dim] for dim in order),
            terms=tuple(term.transpose(axes) for term in self.terms),
        )

    def plus(self, constant: Places) -> Scores | None:
        """Add a constant."""
        spread = spread_over(constant, self.dims) if constant.ndim <= len(self.dims) else None
        if spread is None or self.softmax:
            return None
        return replace(self, terms=(*self.terms, spread))

    def masked(self, where: Places, value: float) -> Scores | None:
        """Fill places with a number below all scores; each query keeps some key."""
        if value > LEAST_FILL or where.all(-1).any():
            return None
        return self.plus(np.where(where, np.float32(value), np.float32(0)))

    def times(self, constant: Places) -> Scores | None:
        """Multiply by a number, or by one for each head."""
        spread = spread_over(constant, self.dims) if constant.ndim <= len(self.dims) else None
        if spread is None or self.softmax:
            return None
        kinds = [axis.kind for axis in flat(self.dims)]
        if any(n > 1 and kind != CHANNEL for n, kind in zip(spread.shape, kinds, strict=True)):
            return None
        heads = [n for n, kind in zip(spread.shape, kinds, strict=True) if kind == CHANNEL]
        return replace(
            self,
            scale=self.scale * spread.reshape(heads),
            terms=tuple(term * spread for term in self.terms),
        )


def scores_of(a: Tokens | relax.Expr, b: Tokens | relax.Expr, emit: Emit) -> Scores:
    """Return a product (batch, n, d) (batch, d, m) that is summed over d.

    What lies in memory, and what has other windows and heads than the first operand, is laid out
    for it: channels first, one window after the other.
    """
    if isinstance(a, Tokens) and not is_separable(a):
        a = lay_out(a, emit)
    count = len(shape_in_memory(b)) - 2
    k: Tokens | relax.Expr
    if isinstance(b, Tokens):
        k = b.permuted([*range(count), count + 1, count])
        k = k if is_separable(k) else lay_out(k, emit)
    else:
        k = emit(relax.op.permute_dims(b, [*range(count), count + 1, count]))
    if isinstance(a, Tokens):
        batch = a.dims[:count]
    elif isinstance(k, Tokens):
        batch = k.dims[:count]
    else:
        batch = tuple((Axis(PIXEL, each),) if each > 1 else () for each in extents(a)[:count])
    q, k = (with_batch(each, batch, emit) for each in (a, k))
    pair = _same_batch(q, k, count)
    if pair is None:  # windows of one are heads of the other
        pair = _same_batch(q, with_batch(lay_out(k, emit), batch, emit), count)
    assert pair is not None
    q, k = pair
    dims = (
        *q.dims[:count],
        tuple(Axis(QUERY, axis.extent) for axis in q.dims[-2]),
        tuple(Axis(KEY, axis.extent) for axis in k.dims[-2]),
    )
    heads = extents_of(flat(q.dims[:count]), CHANNEL)
    return Scores(q, k, dims, np.ones([1] * len(heads)))


def shape_in_memory(operand: Tokens | relax.Expr) -> tuple[int, ...]:
    """Return the extents of an operand, laid out or not."""
    return operand.shape if isinstance(operand, Tokens) else extents(operand)


def is_separable(tokens: Tokens) -> bool:
    """Whether rows are pixels and columns channels."""
    return only(tokens.dims[-2], PIXEL) and only(tokens.dims[-1], CHANNEL)


def with_batch(operand: Tokens | relax.Expr, batch: Dims, emit: Emit) -> Tokens:
    """Return a matrix for each window and head, (batch, n, d), as tokens."""
    if isinstance(operand, Tokens):
        return operand
    *_, rows, columns = extents(operand)
    ends = (
        (Axis(PIXEL, rows),) if rows > 1 else (),
        (Axis(CHANNEL, columns),) if columns > 1 else (),
    )
    return adopt(operand, (*batch, *ends), emit)


def adopt(x: relax.Expr, dims: Dims, emit: Emit) -> Tokens:
    """Return a tensor in memory as tokens, with its channels laid out first."""
    axes = flat(dims)
    order = sorted(range(len(axes)), key=lambda number: axes[number].kind)
    split = emit(relax.op.reshape(x, [axis.extent for axis in axes]))
    if order != sorted(order):
        split = emit(relax.op.permute_dims(split, order))
    channels, pixels = (extents_of(axes, kind) for kind in (CHANNEL, PIXEL))
    image = emit(relax.op.reshape(split, (1, prod(channels), 1, prod(pixels))))
    return Tokens(
        image,
        dims,
        np.arange(prod(channels)).reshape(channels),
        np.arange(prod(pixels)).reshape(pixels),
    )


def _same_batch(a: Tokens, b: Tokens, count: int) -> tuple[Tokens, Tokens] | None:
    """Split the axes of the first dimensions of two tensors alike."""
    dims = []
    for x, y in zip(a.dims[:count], b.dims[:count], strict=True):
        axes = common_axes(x, y)
        if axes is None:
            return None
        dims.append(axes)
    return (
        split_as(a, (*dims, *a.dims[count:])),
        split_as(b, (*dims, *b.dims[count:])),
    )


def in_memory(scores: Scores, emit: Emit) -> relax.Expr:
    """Return the tensor that scores are."""
    op, axes = relax.op, flat(scores.dims)
    shapes = [extents_of(axes, kind) for kind in KINDS]
    windows, heads, queries, keys = map(prod, shapes)

    def tokens(each: Tokens, count: int, turned: bool) -> relax.Expr:
        ends = [(Axis(PIXEL, count),), (Axis(CHANNEL, each.channels.size // heads),)]
        plain = [(Axis(PIXEL, windows),), (Axis(CHANNEL, heads),), *ends[:: -1 if turned else 1]]
        dims = tuple(tuple(axis for axis in dim if axis.extent > 1) for dim in plain)
        return emit(
            op.reshape(
                lay_out(split_as(replace(each, view=None), dims), emit),
                (windows * heads, *shape_of(dims)[2:]),
            )
        )

    x = emit(op.matmul(tokens(scores.q, queries, False), tokens(scores.k, keys, True)))
    x = emit(op.reshape(x, (windows, heads, queries, keys)))
    scale = np.broadcast_to(scores.scale, shapes[1]).reshape(1, heads, 1, 1)
    x = emit(op.multiply(x, relax.const(np.ascontiguousarray(scale, "float32"))))
    for term in scores.terms:
        table = np.ascontiguousarray(grouped(term, axes, shapes), "float32")
        x = emit(op.add(x, relax.const(table)))
    if scores.softmax:
        x = emit(op.nn.softmax(x, -1))
    split = [extent for shape in shapes for extent in shape]
    places = {kind: iter(range(len(axes))) for kind in KINDS}
    starts = dict(zip(KINDS, np.cumsum([0, *map(len, shapes)]).tolist(), strict=False))
    order = [starts[axis.kind] + next(places[axis.kind]) for axis in axes]
    x = emit(op.reshape(x, split))
    if order != sorted(order):
        x = emit(op.permute_dims(x, order))
    return emit(op.reshape(x, scores.shape))


def _split_extents(
    shape: Sequence[int], axes: Sequence[Axis], finer: Sequence[Axis]
) -> tuple[int, ...]:
    """Return the extents of a term whose axes were split, 1 where it repeats."""
    left, found = list(finer), []
    for extent, axis in zip(shape, axes, strict=True):
        size = 1
        while size < axis.extent:
            part = left.pop(0).extent
            size *= part
            found.append(part if extent > 1 else 1)
    return tuple(found)


def grouped(term: Places, axes: Sequence[Axis], shapes: Sequence[tuple[int, ...]]) -> Places:
    """Return a term with one axis for windows, heads, queries and keys, each 1 where it repeats."""
    kinds = [axis.kind for axis in axes]
    parts = []
    order: list[int] = []
    full = list(term.shape)
    for kind, shape in zip(KINDS, shapes, strict=True):
        numbers = [number for number, each in enumerate(kinds) if each == kind]
        varies = any(term.shape[number] > 1 for number in numbers)
        for number, extent in zip(numbers, shape, strict=True):
            full[number] = extent if varies else 1
        order += numbers
        parts.append(prod(shape) if varies else 1)
    return np.broadcast_to(term, full).transpose(order).reshape(parts)
