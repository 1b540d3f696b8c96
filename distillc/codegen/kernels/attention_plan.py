"""What an attention of windows is, and how its work is divided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from distillc.codegen.kernels.token_runs import LINE, HeadRows
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target

CHUNK = 512
"""The most queries that are copied at a time."""


class AttentionSizes(NamedTuple):
    """What an attention is.

    Attributes:
        windows: Of all images.
        heads: Of each window.
        queries: Tokens of a window.
        keys: Tokens that they look at.
        depth: Channels of a head in q and k.
        values: Channels of a head in v.
        query_run: Queries whose pixels are neighbours; divides the queries.
        key_run: Likewise of keys.
        q: Where q lies.
        k: Where k lies.
        v: Where v lies.
        pixels: Of the result, (heads values, pixels).
        biased: Tables of biases: none, one for all heads, or one for each.
        masks: Number of masks.
    """

    windows: int
    heads: int
    queries: int
    keys: int
    depth: int
    values: int
    query_run: int
    key_run: int
    q: HeadRows
    k: HeadRows
    v: HeadRows
    pixels: int
    biased: int
    masks: int

    @property
    def chunk(self) -> int:
        """Queries that are copied at a time."""
        run = self.query_run
        fitting = [d for d in _divisors(self.queries) if d % run == 0 or run % d == 0]
        chunks = [d for d in fitting if CHUNK // 8 <= d <= CHUNK]
        return chunks[-1] if chunks else self.queries

    @property
    def group(self) -> int:
        """Queries whose biases of a key lie together: no vector of queries is of two groups."""
        return LINE if self.chunk % LINE == 0 else self.queries

    @property
    def table_shape(self) -> tuple[int, int, int]:
        """Of a table of biases or masks: groups of queries, keys, queries of a group."""
        return self.queries // self.group, self.keys, self.group

    def table(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Lay out biases or masks (tables, keys, queries) as (tables, groups, keys, group).

        The keys of a vector of queries follow each other, whatever the queries are.
        """
        count, keys, group = self.table_shape
        groups = values.reshape(len(values), keys, count, group)
        return np.ascontiguousarray(groups.transpose(0, 2, 1, 3))

    def flat(self) -> tuple[int, ...]:
        """Return all numbers in a row."""
        return tuple(
            number for each in self for number in (each if isinstance(each, HeadRows) else (each,))
        )

    @classmethod
    def from_flat(cls, flat: Sequence[int]) -> AttentionSizes:
        """Return what `flat` was."""
        windows, heads, queries, keys, depth, values, query_run, key_run, *rest = flat
        counts = (windows, heads, queries, keys, depth, values, query_run, key_run)
        q, k, v = (HeadRows(*rest[start : start + 5]) for start in (0, 5, 10))
        return cls(*counts, q, k, v, *rest[15:])


class Section(NamedTuple):
    """Equal pieces of a range: `pieces` of `size`, from `start` on."""

    start: int
    pieces: int
    size: int


def cut_evenly(total: int, most: int) -> Iterator[Section]:
    """Divide a range into as few pieces of at most `most` as there can be, the larger first."""
    pieces = -(-total // most)
    size, larger = divmod(total, pieces)
    if larger:
        yield Section(0, larger, size + 1)
    yield Section(larger * (size + 1), pieces - larger, size)


class AttentionPlan(NamedTuple):
    """How the work is divided.

    Attributes:
        lanes: Queries of a vector.
        vectors: Vectors of queries that are taken at a time.
        tile: Keys, or channels of the result, whose sums are registers.
        block: Keys whose scores are kept.
        chunk: Queries that are copied at a time.
        parts: Tasks that share the queries of a window.
        together: Windows of a task.
    """

    lanes: int
    vectors: int
    tile: int
    block: int
    chunk: int
    parts: int
    together: int


def plan_attention(sizes: AttentionSizes, target: Target, knobs: Knobs) -> AttentionPlan:
    """Divide the work of an attention; see `attention_kernel` for the knobs."""
    queries, run, chunk = sizes.queries, sizes.query_run, sizes.chunk
    lanes = 1 << (min(target.lanes, chunk).bit_length() - 1)
    rooms = {n: (target.registers - n - 1) // n for n in (1, 2, 3, 4)}
    # The widest of those that load least for a multiply-add.
    widest = max(rooms, key=lambda n: (rooms[n] * n / (rooms[n] + n), n))
    vectors = knobs.choose("vectors", rooms, widest)
    room = rooms[vectors]
    tile = knobs.choose("tile", range(max(1, room // 2), room + 1), room)
    blocks = [d for d in (64, 128, 256, 512) if d < sizes.keys]
    block = knobs.choose("block", [*blocks, sizes.keys], min(sizes.keys, 256), seen=False)
    wanted = 4 * target.threads
    parts = _divisors(queries // chunk)
    parts = [d for d in parts if sizes.windows * sizes.heads * d >= wanted] or parts[-1:]
    groups = [d for d in (1, 2, 4, 8) if chunk == queries and sizes.windows % d == 0] or [1]
    spare = max(1, sizes.windows * sizes.heads // wanted)
    default = max(d for d in groups if d == 1 or (d * run <= 2 * LINE and d <= spare))
    together = knobs.choose("together", groups, default, seen=False)
    return AttentionPlan(lanes, vectors, tile, block, chunk, parts[0], together)


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]
