"""The kernel that computes what attention reads: its sizes, its tables, its result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import prod

import numpy as np
from tvm import relax

from distillc.codegen.kernels.attention import AttentionSizes
from distillc.codegen.kernels.token_runs import HeadRows
from distillc.codegen.kernels.vectors import LOG2_E
from distillc.codegen.rewrites.image_layout.axes import (
    CHANNEL,
    KEY,
    PIXEL,
    QUERY,
    Axis,
    common_axes,
    extents_of,
    flat,
)
from distillc.codegen.rewrites.image_layout.lay_out import Emit, dense, lay_out
from distillc.codegen.rewrites.image_layout.scores import (
    KINDS,
    Scores,
    grouped,
    is_separable,
    shape_in_memory,
    with_batch,
)
from distillc.codegen.rewrites.image_layout.tokens import Places, Tokens, split_as
from distillc.codegen.rewrites.walk import extents

log = logging.getLogger(__name__)

LONGEST_RUN = 32
"""Neighbouring pixels that one entry of a table stands for, at most."""


CallKernel = Callable[[AttentionSizes, list[relax.Expr], tuple[int, ...]], relax.Expr]
"""Calls the kernel of some sizes with its operands; returns the result as an image."""


def attend(
    scores: Scores, values: Tokens | relax.Expr, call: CallKernel, emit: Emit
) -> Tokens | None:
    """Return softmax(scores) v, computed by one kernel; None where no kernel does this.

    Args:
        scores: After the softmax.
        values: (batch, keys, channels).
        call: Binds the kernel's result.
        emit: Binds what is computed before.
    """
    count = len(shape_in_memory(values)) - 2
    batch = [axis for axis in flat(scores.dims) if axis.kind in (CHANNEL, PIXEL)]
    dims = scores.dims[:-2]
    ends = [{axis.kind for axis in dim} for dim in scores.dims[-2:]]
    if len(dims) != count or ends != [{QUERY}, {KEY}]:
        log.debug("attention is not one kernel: its scores are read in another order")
        return None
    if isinstance(values, Tokens):
        own = flat(values.dims[:count])
        if not is_separable(values) or common_axes(batch, own) != tuple(batch):
            values = lay_out(values, emit)
    values = with_batch(values, dims, emit)
    values = split_as(values, (*dims, *values.dims[count:]))
    values = values if values.factor == 1 else dense(values, emit)
    windows, heads = (prod(extents_of(batch, kind)) for kind in (PIXEL, CHANNEL))
    q, k, v = (_rows(each, heads, emit) for each in (scores.q, scores.k, values))
    places = [each[0].pixels.reshape(windows, -1) for each in (q, k, v)]
    if places[1].shape != places[2].shape:
        return None
    sorted_terms = _terms(scores, windows, heads)
    if sorted_terms is None:
        return None
    bias, masks, mask_of = sorted_terms
    if scores.q.is_complete():
        size = extents(q[0].image)[2:]
        result = places[0]
    else:
        size = places[0].shape
        result = np.arange(places[0].size).reshape(size)
    runs = [_run(places[0], result), _run(places[1], places[2])]
    depth, wide = (prod(extents_of(flat(each.dims[-1:]), CHANNEL)) for each in (scores.q, values))
    sizes = AttentionSizes(
        windows=windows,
        heads=heads,
        queries=places[0].shape[1],
        keys=places[1].shape[1],
        depth=depth,
        values=wide,
        query_run=runs[0],
        key_run=runs[1],
        q=q[1],
        k=k[1],
        v=v[1],
        pixels=result.size,
        biased=0 if bias is None else len(bias),
        masks=0 if masks is None else len(masks),
    )
    scale = np.broadcast_to(scores.scale, extents_of(batch, CHANNEL)).reshape(-1)
    scale = scale * scores.q.factor * scores.k.factor * LOG2_E
    images = [
        emit(relax.op.reshape(each[0].image, (rows.channels, rows.pixels)))
        for each, rows in zip((q, k, v), (q[1], k[1], v[1]), strict=True)
    ]
    tables = [
        relax.const(np.ascontiguousarray(each[:, ::run]).astype("int32"))
        for each, run in zip((*places, result), (runs[0], runs[1], runs[1], runs[0]), strict=True)
    ]
    args = [*images, *tables, relax.const(scale.astype("float32"))]
    if bias is not None:
        args.append(_table(sizes, bias))
    if masks is not None:
        args += [_table(sizes, masks), relax.const(mask_of.astype("int32"))]
    dims = (
        *dims,
        tuple(Axis(PIXEL, axis.extent) for axis in scores.dims[-2]),
        (Axis(CHANNEL, wide),) if wide > 1 else (),
    )
    channels = np.arange(heads * wide).reshape(extents_of(flat(dims), CHANNEL))
    pixels = result.reshape(extents_of(flat(dims), PIXEL))
    return Tokens(call(sizes, args, (1, heads * wide, *size)), dims, channels, pixels)


def _rows(tokens: Tokens, heads: int, emit: Emit) -> tuple[Tokens, HeadRows]:
    """Return tokens whose channels a kernel can step over, and the steps."""
    table = tokens.channels.reshape(heads, -1)
    steps = _steps(table)
    if steps is None:
        tokens = dense(tokens, emit)
        table = tokens.channels.reshape(heads, -1)
        steps = _steps(table)
    assert steps is not None
    _, channels, *edges = extents(tokens.image)
    return tokens, HeadRows(channels, prod(edges), *steps)


def _steps(table: Places) -> tuple[int, int, int] | None:
    first = int(table[0, 0])
    head = int(table[1, 0]) - first if len(table) > 1 else 0
    step = int(table[0, 1]) - first if table.shape[1] > 1 else 0
    rows, columns = np.indices(table.shape)
    return (
        (first, head, step) if np.array_equal(first + head * rows + step * columns, table) else None
    )


def _run(*places: Places) -> int:
    """Return how many tokens of a window are always neighbours, in all of some tables."""
    count = places[0].shape[1]
    for run in range(min(count, LONGEST_RUN), 0, -1):
        if count % run == 0 and all(_has_runs(each, run) for each in places):
            return run
    raise AssertionError("every token is a run of one")


def _has_runs(places: Places, run: int) -> bool:
    return bool(np.all(np.diff(places.reshape(len(places), -1, run), axis=2) == 1))


def _terms(
    scores: Scores, windows: int, heads: int
) -> tuple[Places | None, Places | None, Places] | None:
    """Return a table of biases (1 or heads, keys, queries), different masks, and which is whose."""
    axes = flat(scores.dims)
    shapes = [extents_of(axes, kind) for kind in KINDS]
    bias: Places | None = None
    mask: Places | None = None
    for term in scores.terms:
        table = grouped(term, axes, shapes)
        if table.shape[0] == 1:
            bias = table[0] if bias is None else bias + table[0]
        elif table.shape[1] == 1:
            mask = table[:, 0] if mask is None else mask + table[:, 0]
        else:
            log.debug("attention is not one kernel: a term differs by window and head")
            return None
    n, m = (prod(shape) for shape in shapes[2:])
    if bias is not None:
        bias = np.broadcast_to(bias, (len(bias), n, m)).transpose(0, 2, 1)
    which = np.full(windows, -1)
    if mask is None:
        return bias, None, which
    numbers: dict[bytes, int] = {}
    kept: list[Places] = []
    for window, each in enumerate(np.broadcast_to(mask, (windows, n, m))):
        if not each.any():
            continue
        key = each.tobytes()
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(each.T)
        which[window] = numbers[key]
    return bias, np.stack(kept) if kept else None, which


def _table(sizes: AttentionSizes, values: Places) -> relax.Expr:
    return relax.const(sizes.table(values * LOG2_E).astype("float32"))
