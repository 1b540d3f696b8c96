# mypy: disable-error-code="no-untyped-call"
"""Tokens as runs of neighbouring pixels: copied to a task's own memory, and stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.vectors import broadcast, constant, keep, lane_index

UNROLLED_RUNS = 16
"""Runs of a channel that get a register each; more of them are walked by a loop."""
LINE = 16
"""Numbers of a cache line."""


class HeadRows(NamedTuple):
    """Where the channels of heads lie in a buffer (channels, pixels).

    Channel c of head h has the row first + h head + c step.
    """

    channels: int
    pixels: int
    first: int
    head: int
    step: int


class OwnRows:
    """Rows of one task's own memory, `stride` numbers apart."""

    def __init__(self, rows: int, stride: int) -> None:
        self.rows, self._stride = rows, stride
        self._buffer = T.sblock_alloc_buffer((rows * stride,), "float32", scope="global")

    def load(self, row: Expr | int, start: Expr | int, lanes: int = 1) -> Expr:
        """Return neighbours of a row."""
        return self._buffer[lane_index(row * self._stride + start, lanes)]

    def store(self, row: Expr | int, start: Expr | int, vector: Expr, lanes: int = 1) -> None:
        """Store neighbours of a row."""
        T.buffer_store(self._buffer, vector, [lane_index(row * self._stride + start, lanes)])


def spread_rows(rows: int, length: int) -> OwnRows:
    """Return rows an odd number of cache lines apart: no few of them share a set of the cache."""
    return OwnRows(rows, (-(-length // LINE) | 1) * LINE)


class TokenTable:
    """Where runs of tokens begin: a table (windows, runs) of pixels, -1 for a run of zeros.

    Args:
        table: The operand.
        run: Tokens of a run.
        lanes: The most lanes of a vector.
    """

    def __init__(self, table: Any, run: int, lanes: int) -> None:
        self._table, self._run, self._lanes = table, run, lanes

    def copy_in(
        self,
        held: OwnRows,
        source: Any,
        rows: HeadRows,
        head: Expr,
        windows: Sequence[Expr],
        first: Expr | int,
        count: int,
        scale: Expr | None = None,
    ) -> None:
        """Copy `count` tokens from `first` on of each window, times a scale."""
        for channel, at, token, length in self._runs(held.rows, windows, first, count):
            row = rows.first + head * rows.head + channel * rows.step
            with T.If(at >= 0):
                with T.Then():
                    for begin, lanes in self._pieces(length):
                        vector = source[row, lane_index(at + begin, lanes)]
                        if scale is not None:
                            vector = vector * broadcast(scale, lanes)
                        held.store(channel, token + begin, vector, lanes)
                with T.Else():
                    for begin, lanes in self._pieces(length):
                        held.store(channel, token + begin, constant(0.0, lanes), lanes)

    def copy_out(
        self,
        held: OwnRows,
        result: Any,
        row: Expr,
        windows: Sequence[Expr],
        first: Expr | int,
        count: int,
    ) -> None:
        """Copy tokens back, to the rows from `row` on."""
        for channel, at, token, length in self._runs(held.rows, windows, first, count):
            for begin, lanes in self._pieces(length):
                vector = held.load(channel, token + begin, lanes)
                T.buffer_store(result, vector, [row + channel, lane_index(at + begin, lanes)])

    def holds_vectors(self, lanes: int) -> bool:
        """Return whether each vector of tokens is within a run, or some whole runs."""
        return self._run % lanes == 0 or lanes % self._run == 0

    def places(self, window: Expr, token: Expr, lanes: int) -> list[Expr]:
        """Return the pixels where the parts of a vector begin, if the table holds vectors."""
        length = min(self._run, lanes)
        return [
            _keep_index(self._at(window, token + part * length)) for part in range(lanes // length)
        ]

    def _at(self, window: Expr, token: Expr) -> Expr:
        return self._table[window, token // self._run] + token % self._run

    def _runs(
        self, rows: int, windows: Sequence[Expr], first: Expr | int, count: int
    ) -> Iterator[tuple[Expr, Expr, Expr | int, int]]:
        """Yield, for each channel, pixel and place among the held of each run, and its length.

        Channel by channel, for their pixels may lie a power of two apart, which a cache holds few
        of. The same run of neighbouring windows is often on one cache line.
        """
        length = min(self._run, count)
        number = count // length

        def places(index: Expr | int) -> Iterator[tuple[Expr, Expr | int]]:
            for g, window in enumerate(windows):
                token = first + index * length
                at = self._table[window, token // self._run]
                if length < self._run:
                    at = tirx.Select(at < 0, at, self._at(window, token))
                yield at, g * count + index * length

        if number * len(windows) <= UNROLLED_RUNS:
            known = [
                (_keep_index(at), token) for index in range(number) for at, token in places(index)
            ]
            with T.serial(rows) as channel:
                for at, token in known:
                    yield channel, at, token, length
            return
        with T.serial(rows) as channel, T.serial(number) as index:
            for at, token in places(index):
                yield channel, at, token, length

    def _pieces(self, length: int) -> Iterator[tuple[Expr | int, int]]:
        """Yield starts and lanes of vectors that make a run."""
        whole, lanes = length // self._lanes, self._lanes
        if whole > 4:
            with T.serial(whole) as piece:
                yield piece * lanes, lanes
        else:
            yield from ((piece * lanes, lanes) for piece in range(whole))
        done = whole * lanes
        while done < length:
            lanes = 1 << ((length - done).bit_length() - 1)
            yield done, lanes
            done += lanes


def store_parts(result: Any, row: Expr, places: Sequence[Expr], vector: Expr, lanes: int) -> None:
    """Store equal parts of a vector at `places` of a row."""
    length = lanes // len(places)
    if len(places) > 1:
        vector = keep(vector)
    for part, at in enumerate(places):
        some = [tirx.IntImm("int32", part * length + lane) for lane in range(length)]
        value = tirx.Shuffle([vector], some) if len(places) > 1 else vector
        T.buffer_store(result, value, [row, lane_index(at, length)])


def _keep_index(index: Expr) -> Expr:
    """Give an index a register, as `keep` does a vector."""
    buffer = T.sblock_alloc_buffer((1,), "int32", scope="global")
    T.buffer_store(buffer, index, [0])
    return buffer[0]
