# mypy: disable-error-code="no-untyped-call"
"""Tokens as runs of neighbouring pixels: copied to a task's own memory, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tvm.ir import Expr
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.vectors import broadcast, constant, lane_index


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
    """HeadRows of one task's own memory, an odd number of cache lines apart: no two share a set."""

    def __init__(self, rows: int, length: int) -> None:
        self.rows = rows
        self.stride = (-(-length // 16) | 1) * 16
        self.buffer = T.sblock_alloc_buffer((rows * self.stride,), "float32", scope="global")

    def load(self, row: Expr | int, start: Expr | int, lanes: int = 1) -> Expr:
        return self.buffer[lane_index(row * self.stride + start, lanes)]

    def store(self, row: Expr | int, start: Expr | int, vector: Expr, lanes: int = 1) -> None:
        T.buffer_store(self.buffer, vector, [lane_index(row * self.stride + start, lanes)])


class TokenRun(NamedTuple):
    """A run of pixels: it begins at pixel `at`, and at token `start` of the rows."""

    at: Expr
    offset: Expr
    start: Expr
    length: int
    lanes: int

    def _pieces(self) -> Iterator[tuple[Expr | int, int]]:
        """Yield starts and lanes of vectors that make the run."""
        whole, lanes = self.length // self.lanes, self.lanes
        if whole > 4:
            with T.serial(whole) as piece:
                yield piece * lanes, lanes
        else:
            yield from ((piece * lanes, lanes) for piece in range(whole))
        done = whole * lanes
        while done < self.length:
            lanes = 1 << ((self.length - done).bit_length() - 1)
            yield done, lanes
            done += lanes

    def copy_in(
        self, held: OwnRows, source: Any, rows: HeadRows, head: Expr, scale: Expr | None = None
    ) -> None:
        with T.serial(held.rows) as channel:
            row = rows.first + head * rows.head + channel * rows.step
            with T.If(self.at >= 0):
                with T.Then():
                    for begin, lanes in self._pieces():
                        vector = source[row, lane_index(self.at + self.offset + begin, lanes)]
                        if scale is not None:
                            vector = vector * broadcast(scale, lanes)
                        held.store(channel, self.start + begin, vector, lanes)
                with T.Else():
                    for begin, lanes in self._pieces():
                        held.store(channel, self.start + begin, constant(0.0, lanes), lanes)

    def copy_out(self, held: OwnRows, result: Any, row: Expr) -> None:
        with T.serial(held.rows) as channel:
            for begin, lanes in self._pieces():
                vector = held.load(channel, self.start + begin, lanes)
                spot = lane_index(self.at + self.offset + begin, lanes)
                T.buffer_store(result, vector, [row + channel, spot])


def token_runs(
    table: Any, window: Expr, run: int, first: Expr | int, count: int, lanes: int
) -> Iterator[TokenRun]:
    """Yield, in a loop of the kernel, the runs of `count` tokens from `first` on."""
    length = min(run, count)
    with T.serial(count // length) as index:
        token = first + index * length
        yield TokenRun(table[window, token // run], token % run, index * length, length, lanes)
