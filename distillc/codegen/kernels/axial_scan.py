# mypy: disable-error-code="no-untyped-call"
"""The axial scan as a TIR kernel: pixels in vector lanes, states in registers.

Lines lie side by side in the lanes, and a strip of them is walked once for each few channels:
1. Decays and step sizes of a head for the whole strip: one softplus and one exponential for all its
   channels.
2. Down and up, lanes are neighbouring pixels of a row, as they lie in memory. Right and left, lanes
   are rows: squares of pixels are transposed in registers.
3. Step by step: decay, input and output of every state, skip connection.

A border that fills no vector is walked by narrower ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.builder import begin_kernel, operand, with_sizes
from distillc.codegen.kernels.vectors import (
    LOG2_E,
    Vectors,
    broadcast,
    constant,
    exp2,
    keep,
    lane_index,
    softplus,
    transpose,
)
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target


class Sizes(NamedTuple):
    """What a scan is: b, d, h, w, g heads, m groups of B and C, n states.

    Attributes:
        directions: 0 down, 1 right, 2 up, 3 left.
    """

    batch: int
    channels: int
    height: int
    width: int
    heads: int
    groups: int
    states: int
    directions: tuple[int, ...]


class ScanBuffers(NamedTuple):
    """The buffers of a scan, shaped as those of `distillc.surrogates.axial_scan`."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    bias: Any
    y: Any


class Strips(NamedTuple):
    """Lines that are walked by equal vectors: `number` strips of `vectors` times `lanes` lines."""

    start: int
    number: int
    vectors: int
    lanes: int


def cut_lines(lines: int, lanes: int, vectors: int) -> Iterator[Strips]:
    """Divide lines into strips, the widest first."""
    start = 0
    while start < lines:
        number = (lines - start) // (lanes * vectors)
        if number:
            yield Strips(start, number, vectors, lanes)
            start += number * lanes * vectors
        vectors, lanes = (vectors - 1, lanes) if vectors > 1 else (1, lanes // 2)


def axial_scan_kernel(sizes: Sizes, target: Target, knobs: Knobs | None = None) -> tirx.PrimFunc:
    """Return the kernel (u, delta, A, B, C, D, delta_bias) -> y for static shapes, all float32.

    Knobs: `vectors` of a strip of columns; `channels` of it, and `row_channels` of a strip of rows,
    that are walked at once.
    """
    knobs = knobs or Knobs()
    b, d, h, w, g, m, n, ways = sizes
    columns, rows = (any(code % 2 == odd for code in ways) for odd in (0, 1))
    own = g // len(ways)
    vectors = together = abreast = 1
    # Enough channels to hide the latency of a multiply-add, but no more states than first-level
    # caches answer at once. Of rows, each channel also has a square of pixels in registers.
    if columns:
        vectors = knobs.choose("vectors", (1, 2, 4, 8), _strip_vectors(b * own, w, target))
        few = next(each for each in (4, 2, 1) if each * vectors * n <= 64 or each == 1)
        together = knobs.choose("channels", (1, 2, 4, 8), few)
    if rows:
        abreast = knobs.choose("row_channels", (1, 2, 4, 8), 4 if target.lanes <= 4 else 2)
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("axial_scan")
        given = ScanBuffers(
            operand("u", "float32", b, d, h, w),
            operand("delta", "float32", b, g, h, w),
            operand("A", "float32", g),
            operand("B", "float32", b, m, n, h, w),
            operand("C", "float32", b, m, n, h, w),
            operand("D", "float32", d),
            operand("delta_bias", "float32", g),
            operand("y", "float32", b, d, h, w),
        )
        for number, code in enumerate(ways):
            upright = code % 2 == 0
            lines = w if upright else h
            for strips in cut_lines(lines, target.lanes, vectors if upright else 1):
                tasks = own * strips.number
                with T.parallel(b * tasks) as task, T.sblock("scan"):
                    T.reads()
                    T.writes()
                    image, head = task // tasks, number * own + task % tasks // strips.number
                    first = strips.start + task % strips.number * (strips.vectors * strips.lanes)
                    place = (image, head, first)
                    backwards = code >= 2
                    if upright:
                        _walk_columns(given, sizes, place, strips, backwards, together)
                    else:
                        _walk_rows(given, sizes, place, strips.lanes, backwards, abreast)
    return with_sizes(builder.get(), (*sizes[:-1], *ways))


def _walk_columns(
    given: ScanBuffers,
    sizes: Sizes,
    place: tuple[Expr, Expr, Expr],
    strips: Strips,
    backwards: bool,
    together: int,
) -> None:
    """Walk one strip of columns for all channels of a head."""
    image, head, first = place
    _, d, h, _, g, m, n, _ = sizes
    share, weights = d // g, head * m // g
    together = _divisor(share, together)
    lanes = strips.lanes
    spots = [lane_index(first + v * lanes, lanes) for v in range(strips.vectors)]
    wide = strips.vectors * lanes
    decays = T.sblock_alloc_buffer((h * wide,), "float32", scope="global")
    inputs = T.sblock_alloc_buffer((h * n * wide,), "float32", scope="global")
    rate = broadcast(given.A[head] * T.float32(LOG2_E), lanes)
    bias = broadcast(given.bias[head], lanes)

    def row(t: Expr) -> Expr:
        return h - 1 - t if backwards else t

    with T.serial(h) as t:
        dts = softplus([given.delta[image, head, row(t), spot] + bias for spot in spots])
        for v, (dt, decay) in enumerate(zip(dts, exp2([dt * rate for dt in dts]), strict=True)):
            T.buffer_store(decays, decay, [lane_index(t * wide + v * lanes, lanes)])
            for s in range(n):
                into = dt * given.B[image, weights, s, row(t), spots[v]]
                T.buffer_store(inputs, into, [lane_index((t * n + s) * wide + v * lanes, lanes)])
    with T.serial(share // together) as index:
        channels = [head * share + index * together + k for k in range(together)]
        skips = [broadcast(given.D[channel], lanes) for channel in channels]
        states = Vectors(together * n * strips.vectors, lanes)
        for group in states.groups():
            for i in group:
                states[i] = constant(0.0, lanes)
        with T.serial(h) as t:
            for v, spot in enumerate(spots):
                decay = keep(decays[lane_index(t * wide + v * lanes, lanes)])
                totals, us = [], []
                for channel, skip in zip(channels, skips, strict=True):
                    us.append(keep(given.u[image, channel, row(t), spot]))
                    total = Vectors(1, lanes)
                    total[0] = skip * us[-1]
                    totals.append(total)
                for s in range(n):
                    into = keep(inputs[lane_index((t * n + s) * wide + v * lanes, lanes)])
                    out = keep(given.C[image, weights, s, row(t), spot])
                    for k, (u, total) in enumerate(zip(us, totals, strict=True)):
                        i = (k * n + s) * strips.vectors + v
                        states[i] = decay * states[i] + into * u
                        total[0] = total[0] + out * states[i]
                for channel, total in zip(channels, totals, strict=True):
                    T.buffer_store(given.y, total[0], [image, channel, row(t), spot])


def _walk_rows(
    given: ScanBuffers,
    sizes: Sizes,
    place: tuple[Expr, Expr, Expr],
    lanes: int,
    backwards: bool,
    together: int,
) -> None:
    """Walk as many rows as there are lanes for all channels of a head."""
    image, head, first = place
    _, d, _, w, g, m, n, _ = sizes
    share, weights = d // g, head * m // g
    together = _divisor(share, together)
    decays = T.sblock_alloc_buffer((w * lanes,), "float32", scope="global")
    inputs, outputs = (
        T.sblock_alloc_buffer((w * n * lanes,), "float32", scope="global") for _ in range(2)
    )
    rate = broadcast(given.A[head] * T.float32(LOG2_E), lanes)
    bias = broadcast(given.bias[head], lanes)
    whole = w // lanes

    def squares() -> Iterator[tuple[Expr, int]]:
        """Yield where each square of pixels begins, in the order of walking, and its columns."""
        rest = w % lanes
        if backwards and rest:
            yield tirx.IntImm("int64", whole * lanes), rest
        if whole:
            with T.serial(whole) as index:
                yield (whole - 1 - index if backwards else index) * lanes, lanes
        if not backwards and rest:
            yield tirx.IntImm("int64", whole * lanes), rest

    def load(buffer: Any, before: Sequence[Any], begin: Expr, columns: int) -> list[Expr]:
        """Return the columns of a square, a vector each."""
        if columns == lanes:
            here = lane_index(begin, lanes)
            return transpose([keep(buffer[*before, first + r, here]) for r in range(lanes)])
        found = []
        for column in range(columns):
            vector = Vectors(1, lanes)
            for r in range(lanes):
                vector.set_lane(0, r, buffer[*before, first + r, begin + column])
            found.append(vector[0])
        return found

    def store(channel: Expr, begin: Expr, vectors: list[Expr]) -> None:
        """Write the columns of a square, a vector each."""
        if len(vectors) == lanes:
            for r, vector in enumerate(transpose(vectors)):
                here = lane_index(begin, lanes)
                T.buffer_store(given.y, vector, [image, channel, first + r, here])
            return
        for at, vector in enumerate(vectors):
            for r in range(lanes):
                lane = tirx.Shuffle([vector], [tirx.IntImm("int32", r)])
                spot = [image, channel, first + r, begin + at]
                T.buffer_store(given.y, vector if lanes == 1 else lane, spot)

    def step(begin: Expr, column: int, size: int = 1, s: int = 0) -> Expr | int:
        return lane_index(((begin + column) * size + s) * lanes, lanes)

    for begin, columns in squares():
        deltas = load(given.delta, (image, head), begin, columns)
        dts = []
        for start in range(0, columns, 4):
            some = softplus([delta + bias for delta in deltas[start : start + 4]])
            for at, decay in enumerate(exp2([dt * rate for dt in some]), start):
                T.buffer_store(decays, decay, [step(begin, at)])
            dts += some
        for s in range(n):
            pair = (load(each, (image, weights, s), begin, columns) for each in (given.B, given.C))
            for at, (dt, into, out) in enumerate(zip(dts, *pair, strict=True)):
                T.buffer_store(inputs, dt * into, [step(begin, at, n, s)])
                T.buffer_store(outputs, out, [step(begin, at, n, s)])
    with T.serial(share // together) as index:
        channels = [head * share + index * together + k for k in range(together)]
        skips = [broadcast(given.D[channel], lanes) for channel in channels]
        states = [Vectors(n, lanes) for _ in channels]
        for group in states[0].groups():
            for s in group:
                for own in states:
                    own[s] = constant(0.0, lanes)
        for begin, columns in squares():
            us = [load(given.u, (image, channel), begin, columns) for channel in channels]
            order = range(columns - 1, -1, -1) if backwards else range(columns)
            found: list[dict[int, Expr]] = [{} for _ in channels]
            for at in order:
                totals = [Vectors(1, lanes) for _ in channels]
                for total, skip, u in zip(totals, skips, us, strict=True):
                    total[0] = skip * u[at]
                decay = keep(decays[step(begin, at)])
                for group in states[0].groups():
                    for s in group:
                        into = keep(inputs[step(begin, at, n, s)])
                        out = keep(outputs[step(begin, at, n, s)])
                        for own, u, total in zip(states, us, totals, strict=True):
                            own[s] = decay * own[s] + into * u[at]
                            total[0] = total[0] + out * own[s]
                for each, total in zip(found, totals, strict=True):
                    each[at] = total[0]
            for channel, each in zip(channels, found, strict=True):
                store(channel, begin, [each[at] for at in range(columns)])


def _strip_vectors(heads: int, width: int, target: Target) -> int:
    """Return the vectors of a strip of columns: two cache lines, fewer where a thread idles."""
    vectors = max(1, 32 // target.lanes)
    while vectors > 1 and heads * (width // (vectors * target.lanes)) < target.threads:
        vectors //= 2
    return vectors


def _divisor(number: int, limit: int) -> int:
    """Return the largest divisor up to a limit."""
    return next(each for each in range(min(limit, number), 0, -1) if number % each == 0)


def rebuild_axial_scan(sizes: tuple[int, ...], target: Target, knobs: Knobs) -> tirx.PrimFunc:
    """Return a scan as `axial_scan_kernel` builds it, its knobs answered.

    Args:
        sizes: What `built_from` returns.
        target: What it is compiled for.
        knobs: Answers its choices.
    """
    b, d, h, w, g, m, n, *ways = sizes
    return axial_scan_kernel(Sizes(b, d, h, w, g, m, n, tuple(ways)), target, knobs)
