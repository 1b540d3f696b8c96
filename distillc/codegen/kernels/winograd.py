# mypy: disable-error-code="no-untyped-call"
"""Dense 3x3 convolutions by Winograd's F(4x4, 3x3): tiles in vector lanes, 36 products for 144.

A tile is 4 x 4 results and the 6 x 6 pixels around them. Neighbouring tiles of a line, or all of
two or four lines, are the lanes of a vector. A task takes a few vectors of tiles:
1. Of each channel, pixels are loaded as they lie, parted by shuffles, and transformed (BT d B).
2. Each of the 36 places of a tile has a product of its own over the channels, in registers.
3. The products are transformed back (AT m A), shuffled into lines, and stored with what is added.

The points are 0, 1, -1, 2 and -2 (arXiv 1509.09308).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.builder import begin_kernel, operand, with_sizes
from distillc.codegen.kernels.vectors import (
    Vectors,
    broadcast,
    constant,
    keep,
    lane_index,
    lanes_of,
)
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target

EDGE = 4
"""Results along each edge of a tile."""
REACH = 6
"""Pixels along each edge of a tile that they depend on."""
TILES = 64
"""Tiles of a task: what is kept of them stays near the second-level cache."""

_WEIGHTS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


class WinogradSizes(NamedTuple):
    """A convolution of an image (channels, height, width), padded by one pixel.

    Attributes:
        channels: Of the image.
        outputs: Channels of the result.
        height: A multiple of 4.
        width: See `tile_lanes`.
        biased: 1 where a number is added to each channel, or else 0.
        added: 1 where another image is added, or else 0.
    """

    channels: int
    outputs: int
    height: int
    width: int
    biased: int
    added: int


def transform_weights(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return weights (outputs, channels, 3, 3) as `winograd_kernel` reads them."""
    found = np.einsum("ia,jb,ocab->ijco", _WEIGHTS, _WEIGHTS, weight.astype("float64"))
    return np.ascontiguousarray(found.reshape(REACH**2, *found.shape[2:]), "float32")


def tile_lanes(height: int, width: int, lanes: int) -> int:
    """Return how many tiles make a vector, at least four: a part of a line, or two or four lines.

    Returns:
        0 where the tiles of an image cannot be divided so.
    """
    if width % EDGE or height % EDGE:
        return 0
    down, across = height // EDGE, width // EDGE
    while lanes >= EDGE:
        lines = max(1, lanes // across)
        if lines <= EDGE and down % lines == 0 and across * lines % lanes == 0:
            return lanes
        lanes //= 2
    return 0


def winograd_kernel(
    sizes: WinogradSizes, target: Target, knobs: Knobs | None = None
) -> tirx.PrimFunc:
    """Return the kernel of a convolution at static shapes.

    Operands, float32: x (channels, pixels); weights (36, channels, outputs), see
    `transform_weights`; bias (outputs,), if there is one; the image that is added (outputs,
    pixels), if there is one. The result is (outputs, pixels).

    Knobs: `tiles`, vectors of them in a task; `vectors` and `height` of the products' registers.
    """
    s, knobs = sizes, knobs or Knobs()
    lanes = tile_lanes(s.height, s.width, target.lanes)
    total = s.height // EDGE * (s.width // EDGE) // lanes
    counts = [n for n in range(1, total + 1) if total % n == 0 and n * lanes <= 4 * TILES]
    # Each thread gets a task at least.
    most = min(max(TILES // lanes, 1), max(total // target.threads, 1))
    per = knobs.choose("tiles", counts, max(n for n in counts if n <= most), seen=False)
    widths = [n for n in (4, 3, 2, 1) if per % n == 0]
    wide = knobs.choose("vectors", widths, widths[0])
    room = max(1, (target.registers - wide - 1) // wide)
    heights = [n for n in range(room, 0, -1) if s.outputs % n == 0]
    high = knobs.choose("height", heights, heights[0])
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("winograd")
        pixels = s.height * s.width
        x = operand("x", "float32", s.channels, pixels)
        weights = operand("weights", "float32", REACH**2, s.channels, s.outputs)
        bias = operand("bias", "float32", s.outputs) if s.biased else None
        added = operand("added", "float32", s.outputs, pixels) if s.added else None
        y = operand("y", "float32", s.outputs, pixels)
        with T.parallel(total // per) as task, T.sblock("winograd"):
            T.reads()
            T.writes()
            own = _Task(s, lanes, per, task)
            own.transform(x)
            own.multiply(weights, wide, high)
            own.finish(y, bias, added)
    return with_sizes(builder.get(), s)


class _Task:
    """Some vectors of tiles: their transformed channels, and the products."""

    def __init__(self, sizes: WinogradSizes, lanes: int, per: int, task: Expr) -> None:
        self.sizes, self.lanes, self.per, self.task = sizes, lanes, per, task
        self.wide = per * lanes
        self.across = min(lanes, sizes.width // EDGE)  # tiles of a line that are in a vector
        places = REACH**2 * self.wide
        self.inputs = T.sblock_alloc_buffer((sizes.channels * places,), "float32")
        self.products = T.sblock_alloc_buffer((sizes.outputs * places,), "float32")

    def _place(self, number: Expr) -> tuple[Expr, Expr]:
        """Return the first line of tiles and the first pixel's column of a vector of the task."""
        across = self.sizes.width // EDGE // self.across
        part = (self.task * self.per + number) * (self.lanes // self.across)
        return part // across, part % across * (EDGE * self.across)

    def _starts(self, line: Expr, row: int, column: Expr) -> list[tuple[Expr, Expr]]:
        """Return the rows and columns where pixels of a tile's row begin, a vector of them each."""
        each = EDGE * self.across // self.lanes
        return [
            ((line + n // each) * EDGE + row, column + n % each * self.lanes) for n in range(EDGE)
        ]

    def transform(self, x: Any) -> None:
        """Transform the pixels of all channels."""
        s, lanes = self.sizes, self.lanes
        with T.serial(s.channels) as channel, T.serial(self.per) as number:
            line, column = self._place(number)
            rows = [_forward(self._parted(x, channel, line, i - 1, column)) for i in range(REACH)]
            for j in range(REACH):
                for i, value in enumerate(_forward([row[j] for row in rows])):
                    start = ((i * REACH + j) * s.channels + channel) * self.wide + number * lanes
                    T.buffer_store(self.inputs, value, [lane_index(start, lanes)])

    def _parted(self, x: Any, channel: Expr, line: Expr, row: int, column: Expr) -> list[Expr]:
        """Return pixels of a row of tiles, those of the same place in a tile a vector: six."""
        s, lanes = self.sizes, self.lanes
        some = []
        for at, begin in self._starts(line, row, column):
            start = T.max(T.min(at, s.height - 1), 0) * s.width + begin
            share = T.Select(_is_inside(at, s.height), T.float32(1), T.float32(0))
            some.append(keep(x[channel, lane_index(start, lanes)] * broadcast(share, lanes)))
        parts = [_shuffle(some, [EDGE * t + n for t in range(lanes)]) for n in range(EDGE)]
        before, after = self._beside(x, channel, line * EDGE + row, column)
        edges = range(0, lanes, self.across)
        left = [lanes if t in edges else t - 1 for t in range(lanes)]
        right = [lanes if t + 1 in (*edges, lanes) else t + 1 for t in range(lanes)]
        return [_shuffle([parts[-1], before], left), *parts, _shuffle([parts[0], after], right)]

    def _beside(self, x: Any, channel: Expr, row: Expr, column: Expr) -> tuple[Expr, Expr]:
        """Return the pixels before and after those of a vector, zeros beside whole lines."""
        s, end = self.sizes, EDGE * self.across
        if end == s.width:
            zeros = constant(0.0, self.lanes)
            return zeros, zeros

        def number(place: Expr, there: Expr) -> Expr:
            start = T.max(T.min(row, s.height - 1), 0) * s.width + place
            inside = T.And(_is_inside(row, s.height), there)
            pixel = T.if_then_else(inside, x[channel, start], T.float32(0))
            return keep(broadcast(pixel, self.lanes))

        return number(column - 1, column > 0), number(column + end, column + end < s.width)

    def multiply(self, weights: Any, wide: int, high: int) -> None:
        """Sum over the channels, for each place of the tiles."""
        s, lanes = self.sizes, self.lanes
        with (
            T.serial(REACH**2) as place,
            T.serial(s.outputs // high) as block,
            T.serial(self.per // wide) as group,
        ):
            accs = [[Vectors(1, lanes) for _ in range(wide)] for _ in range(high)]
            for acc in (acc for own in accs for acc in own):
                acc[0] = constant(0.0, lanes)
            with T.serial(s.channels) as channel:
                start = (place * s.channels + channel) * self.wide + group * (wide * lanes)
                some = [
                    keep(self.inputs[lane_index(start + v * lanes, lanes)]) for v in range(wide)
                ]
                for r, own in enumerate(accs):
                    weight = broadcast(weights[place, channel, block * high + r], lanes)
                    for acc, vector in zip(own, some, strict=True):
                        acc[0] = acc[0] + weight * vector
            for r, own in enumerate(accs):
                row = ((block * high + r) * REACH**2 + place) * self.wide
                for v, acc in enumerate(own):
                    start = row + (group * wide + v) * lanes
                    T.buffer_store(self.products, acc[0], [lane_index(start, lanes)])

    def finish(self, y: Any, bias: Any, added: Any) -> None:
        """Transform the products back, and store them with what is added."""
        s, lanes = self.sizes, self.lanes
        with T.serial(s.outputs) as output, T.serial(self.per) as number:
            line, column = self._place(number)
            first = output * (REACH**2 * self.wide) + number * lanes
            columns = [
                _back([
                    keep(self.products[lane_index(first + (i * REACH + j) * self.wide, lanes)])
                    for i in range(REACH)
                ])
                for j in range(REACH)
            ]  # fmt: skip
            for i in range(EDGE):
                results = _back([each[i] for each in columns])
                for n, (row, begin) in enumerate(self._starts(line, i, column)):
                    spots = range(n * lanes, (n + 1) * lanes)
                    order = [spot % EDGE * lanes + spot // EDGE for spot in spots]
                    value = _shuffle(results, order)
                    here = lane_index(row * s.width + begin, lanes)
                    if bias is not None:
                        value = value + broadcast(bias[output], lanes)
                    if added is not None:
                        value = value + added[output, here]
                    T.buffer_store(y, value, [output, here])


def _is_inside(row: Expr, height: int) -> Expr:
    return T.And(row >= 0, row < height)


def _shuffle(vectors: Sequence[Expr], order: Sequence[int]) -> Expr:
    return keep(tirx.Shuffle(list(vectors), [tirx.IntImm("int32", each) for each in order]))


def _times(factor: float, vector: Expr, plus: Expr) -> Expr:
    return constant(factor, lanes_of(vector)) * vector + plus


def _forward(d: Sequence[Expr]) -> list[Expr]:
    """Return BT d."""
    a, b = keep(_times(-4, d[2], d[4])), keep(_times(-4, d[1], d[3]))
    c, e = keep(d[4] - d[2]), keep(constant(2, lanes_of(d[0])) * (d[3] - d[1]))
    return [
        keep(_times(4, d[0], _times(-5, d[2], d[4]))),
        keep(a + b),
        keep(a - b),
        keep(c + e),
        keep(c - e),
        keep(_times(4, d[1], _times(-5, d[3], d[5]))),
    ]


def _back(m: Sequence[Expr]) -> list[Expr]:
    """Return AT m."""
    a, b, c, d = keep(m[1] + m[2]), keep(m[1] - m[2]), keep(m[3] + m[4]), keep(m[3] - m[4])
    return [
        keep(m[0] + (a + c)),
        keep(_times(2, d, b)),
        keep(_times(4, c, a)),
        keep(_times(8, d, b) + m[5]),
    ]


def rebuild_winograd(flat: tuple[int, ...], target: Target, knobs: Knobs) -> tirx.PrimFunc:
    """Return a convolution as `winograd_kernel` builds it, its knobs answered.

    Args:
        flat: What `built_from` returns.
        target: What it is compiled for.
        knobs: Answers its choices.
    """
    return winograd_kernel(WinogradSizes(*flat), target, knobs)
