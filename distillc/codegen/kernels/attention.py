# mypy: disable-error-code="no-untyped-call"
"""Attention of windows as a TIR kernel: queries in vector lanes, keys and channels in registers.

A window of a head is one task, or a part of its queries where there are few windows:
1. Keys and values are copied, run by run, to where a channel's pixels lie together; so are some
   queries, times the scale.
2. For a block of queries, scores of a few keys at a time: bias, mask, products over the depth. Each
   key has vectors of its own, so maximum and sum over the keys are taken lane by lane.
3. Powers of two of what is left of the maximum, and their sum.
4. The powers times the values, a few channels at a time, divided by the sum.

Where keys are many, 2 to 4 take a block of them at a time, and what was summed shrinks by the power
of what the maximum has grown (arXiv 2205.14135). So memory is linear in queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.builder import begin_kernel, operand, with_sizes
from distillc.codegen.kernels.token_runs import HeadRows, OwnRows, token_runs
from distillc.codegen.kernels.vectors import (
    Vectors,
    broadcast,
    constant,
    exp2,
    keep,
    lane_index,
)
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target

LEAST = -3.4028234663852886e38
"""The maximum of no scores: below it is only infinity, and no difference from it is NaN."""


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


class _Plan(NamedTuple):
    """How the work is divided: `tile` keys or channels and `vectors` of queries in registers."""

    lanes: int
    vectors: int
    tile: int
    block: int
    chunk: int
    parts: int


def _make_plan(sizes: AttentionSizes, target: Target, knobs: Knobs) -> _Plan:
    lanes = 1 << (min(target.lanes, sizes.queries).bit_length() - 1)
    best = (0.0, 1, 1)
    for vectors in (4, 3, 2, 1):
        room = (target.registers - vectors - 1) // vectors
        best = max(best, (room * vectors / (room + vectors), vectors, room))
    vectors = knobs.choose("vectors", (1, 2, 3, 4), best[1])
    room = (target.registers - vectors - 1) // vectors
    tile = knobs.choose("tile", range(1, room + 1), room)
    block = knobs.choose(
        "block",
        [d for d in (64, 128, 256, 512) if d < sizes.keys],
        min(sizes.keys, 256),
        seen=False,
    )
    chunks = [
        d
        for d in range(1, sizes.queries + 1)
        if sizes.queries % d == 0 and (d % sizes.query_run == 0 or sizes.query_run % d == 0)
    ]
    chunk = max(d for d in chunks if d <= 512 or d == chunks[0])
    tasks = sizes.windows * sizes.heads
    wanted = 4 * target.threads
    parts = next(
        (
            d
            for d in range(1, sizes.queries // chunk + 1)
            if sizes.queries // chunk % d == 0 and tasks * d >= wanted
        ),
        sizes.queries // chunk,
    )
    return _Plan(lanes, vectors, tile, block, chunk, parts)


def attention_kernel(
    sizes: AttentionSizes, target: Target, knobs: Knobs | None = None
) -> tirx.PrimFunc:
    """Return the kernel softmax(q kT scale + bias + mask) v for static shapes.

    Operands, float32 unless noted: q, k, v (channels, pixels); q_at (windows, runs) int32, the
    pixel where each run of queries begins; k_at and v_at, -1 for a run of zeros; y_at like q_at,
    where the results go; scale (heads,), times log2(e) like the next two; bias (biased, keys,
    queries), if there is one; if there are masks, mask (masks, keys, queries) and mask_of
    (windows,) int32, -1 for none. The result is (heads values, pixels). A query needs a score
    that is finite.
    """
    s = sizes
    plan = _make_plan(sizes, target, knobs or Knobs())
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("attention")
        q = operand("q", "float32", s.q.channels, s.q.pixels)
        k = operand("k", "float32", s.k.channels, s.k.pixels)
        v = operand("v", "float32", s.v.channels, s.v.pixels)
        q_at = operand("q_at", "int32", s.windows, s.queries // s.query_run)
        k_at = operand("k_at", "int32", s.windows, s.keys // s.key_run)
        v_at = operand("v_at", "int32", s.windows, s.keys // s.key_run)
        y_at = operand("y_at", "int32", s.windows, s.queries // s.query_run)
        scale = operand("scale", "float32", s.heads)
        bias = mask = mask_of = None
        if s.biased:
            bias = operand("bias", "float32", s.biased, s.keys, s.queries)
        if s.masks:
            mask = operand("mask", "float32", s.masks, s.keys, s.queries)
            mask_of = operand("mask_of", "int32", s.windows)
        y = operand("y", "float32", s.heads * s.values, s.pixels)
        with T.parallel(s.heads * s.windows * plan.parts) as task, T.sblock("attention"):
            T.reads()
            T.writes()
            head = task // (s.windows * plan.parts)
            window = task // plan.parts % s.windows
            keys = OwnRows(s.depth, s.keys)
            values = OwnRows(s.values, s.keys)
            for held, source, rows, table in ((keys, k, s.k, k_at), (values, v, s.v, v_at)):
                for run in token_runs(table, window, s.key_run, 0, s.keys, target.lanes):
                    run.copy_in(held, source, rows, head)
            chunks = s.queries // plan.chunk // plan.parts
            queries = OwnRows(s.depth, plan.chunk)
            results = OwnRows(s.values, plan.chunk)
            with T.serial(chunks) as index:
                first = (task % plan.parts * chunks + index) * plan.chunk
                for run in token_runs(q_at, window, s.query_run, first, plan.chunk, target.lanes):
                    run.copy_in(queries, q, s.q, head, scale[head])
                own = _Task(
                    sizes,
                    plan,
                    queries,
                    keys,
                    values,
                    results,
                    head,
                    window,
                    first,
                    bias,
                    mask,
                    mask_of,
                )
                own.compute()
                for run in token_runs(y_at, window, s.query_run, first, plan.chunk, target.lanes):
                    run.copy_out(results, y, head * s.values)
    flat = (*s[:8], *s.q, *s.k, *s.v, *s[11:])
    return with_sizes(builder.get(), flat)


class _Task(NamedTuple):
    """Attention of the queries that lie in `queries`."""

    sizes: AttentionSizes
    plan: _Plan
    queries: OwnRows
    keys: OwnRows
    values: OwnRows
    results: OwnRows
    head: Expr
    window: Expr
    first: Expr
    bias: Any
    mask: Any
    mask_of: Any

    def compute(self) -> None:
        plan = self.plan
        needed = -(-plan.chunk // plan.lanes)
        for section in cut_evenly(needed, plan.vectors):
            wide = section.size * plan.lanes
            scores = T.sblock_alloc_buffer(
                (min(plan.block, self.sizes.keys) * wide,), "float32", scope="global"
            )
            with T.serial(section.pieces) as index:
                begin = (section.start + index * section.size) * plan.lanes
                spots = [begin + v * plan.lanes for v in range(section.size)]
                if plan.chunk % plan.lanes:
                    # The last vector begins earlier, where it fits: some queries are taken twice.
                    spots[-1] = T.min(spots[-1], plan.chunk - plan.lanes)
                self._block(spots, scores)

    def _block(self, spots: Sequence[Expr], scores: Any) -> None:
        lanes, keys, block = self.plan.lanes, self.sizes.keys, self.plan.block
        maxima = [Vectors(1, lanes) for _ in spots]
        sums = [Vectors(1, lanes) for _ in spots]
        for most, total in zip(maxima, sums, strict=True):
            most[0] = constant(LEAST, lanes)
            total[0] = constant(0.0, lanes)
        if keys <= block:
            self._score(spots, scores, maxima, 0, keys)
            self._exponents(scores, maxima, sums, keys)
            shares = [keep(constant(1.0, lanes) / total[0]) for total in sums]
            for row, totals in self._products(scores, len(spots), 0, keys):
                for spot, total, share in zip(spots, totals, shares, strict=True):
                    self.results.store(row, spot, total[0] * share, lanes)
            return
        wide = len(spots) * lanes
        held = T.sblock_alloc_buffer((self.sizes.values * wide,), "float32", scope="global")

        def place(row: Expr, v: int) -> Expr:
            return lane_index(row * wide + v * lanes, lanes)

        with T.serial(self.sizes.values) as row:
            for v in range(len(spots)):
                T.buffer_store(held, constant(0.0, lanes), [place(row, v)])
        for section in cut_evenly(keys, block):
            with T.serial(section.pieces) as number:
                start = section.start + number * section.size
                before = [keep(most[0]) for most in maxima]
                self._score(spots, scores, maxima, start, section.size)
                shrunk = exp2([old - most[0] for old, most in zip(before, maxima, strict=True)])
                for total, factor in zip(sums, shrunk, strict=True):
                    total[0] = total[0] * factor
                self._exponents(scores, maxima, sums, section.size)
                for row, totals in self._products(scores, len(spots), start, section.size):
                    for v, (total, factor) in enumerate(zip(totals, shrunk, strict=True)):
                        here = place(row, v)
                        T.buffer_store(held, held[here] * factor + total[0], [here])
        shares = [keep(constant(1.0, lanes) / total[0]) for total in sums]
        with T.serial(self.sizes.values) as row:
            for v, spot in enumerate(spots):
                self.results.store(row, spot, held[place(row, v)] * shares[v], lanes)

    def _score(
        self,
        spots: Sequence[Expr],
        scores: Any,
        maxima: Sequence[Vectors],
        start: Expr | int,
        count: int,
    ) -> None:
        lanes = self.plan.lanes
        wide = len(spots) * lanes
        for section in cut_evenly(count, self.plan.tile):
            with T.serial(section.pieces) as index:
                key = section.start + index * section.size
                accs = [[Vectors(1, lanes) for _ in spots] for _ in range(section.size)]
                self._begin(accs, spots, start + key)
                with T.serial(self.sizes.depth) as channel:
                    some = [keep(self.queries.load(channel, spot, lanes)) for spot in spots]
                    for j, own in enumerate(accs):
                        weight = broadcast(self.keys.load(channel, start + key + j), lanes)
                        for acc, vector in zip(own, some, strict=True):
                            acc[0] = acc[0] + weight * vector
                for j, own in enumerate(accs):
                    for v, (acc, most) in enumerate(zip(own, maxima, strict=True)):
                        most[0] = T.max(most[0], acc[0])
                        spot = lane_index((key + j) * wide + v * lanes, lanes)
                        T.buffer_store(scores, acc[0], [spot])

    def _begin(
        self, accs: Sequence[Sequence[Vectors]], spots: Sequence[Expr], key: Expr | int
    ) -> None:
        lanes = self.plan.lanes

        def fill(masked: bool) -> None:
            for j, own in enumerate(accs):
                for acc, spot in zip(own, spots, strict=True):
                    here = lane_index(self.first + spot, lanes)
                    terms = []
                    if self.bias is not None:
                        table = self.head if self.sizes.biased > 1 else 0
                        terms.append(self.bias[table, key + j, here])
                    if masked:
                        terms.append(self.mask[self.mask_of[self.window], key + j, here])
                    acc[0] = sum(terms[1:], terms[0]) if terms else constant(0.0, lanes)

        if self.mask is None:
            fill(False)
            return
        with T.If(self.mask_of[self.window] >= 0):
            with T.Then():
                fill(True)
            with T.Else():
                fill(False)

    def _exponents(
        self, scores: Any, maxima: Sequence[Vectors], sums: Sequence[Vectors], count: int
    ) -> None:
        lanes = self.plan.lanes
        with T.serial(count) as key:
            spots = [lane_index((key * len(sums) + v) * lanes, lanes) for v in range(len(sums))]
            powers = exp2(
                [scores[spot] - most[0] for spot, most in zip(spots, maxima, strict=True)]
            )
            for spot, power, total in zip(spots, powers, sums, strict=True):
                T.buffer_store(scores, power, [spot])
                total[0] = total[0] + power

    def _products(
        self, scores: Any, vectors: int, start: Expr | int, count: int
    ) -> Iterator[tuple[Expr, list[Vectors]]]:
        """Yield the sums of a channel of `count` values times their powers, channel by channel."""
        lanes = self.plan.lanes
        for section in cut_evenly(self.sizes.values, self.plan.tile):
            with T.serial(section.pieces) as index:
                row = section.start + index * section.size
                accs = [[Vectors(1, lanes) for _ in range(vectors)] for _ in range(section.size)]
                for acc in (acc for own in accs for acc in own):
                    acc[0] = constant(0.0, lanes)
                with T.serial(count) as key:
                    some = [
                        keep(scores[lane_index((key * vectors + v) * lanes, lanes)])
                        for v in range(vectors)
                    ]
                    for c, own in enumerate(accs):
                        weight = broadcast(self.values.load(row + c, start + key), lanes)
                        for acc, vector in zip(own, some, strict=True):
                            acc[0] = acc[0] + weight * vector
                yield from ((row + c, own) for c, own in enumerate(accs))


def rebuild_attention(flat: tuple[int, ...], target: Target, knobs: Knobs) -> tirx.PrimFunc:
    """Return an attention as `attention_kernel` builds it, its knobs answered.

    Args:
        flat: What `built_from` returns.
        target: What it is compiled for.
        knobs: Answers its choices.
    """
    (
        windows,
        heads,
        queries,
        keys,
        depth,
        values,
        query_run,
        key_run,
        *rest,
        pixels,
        biased,
        masks,
    ) = flat
    q, k, v = (HeadRows(*rest[start : start + 5]) for start in (0, 5, 10))
    counts = (windows, heads, queries, keys, depth, values, query_run, key_run)
    return attention_kernel(AttentionSizes(*counts, q, k, v, pixels, biased, masks), target, knobs)
