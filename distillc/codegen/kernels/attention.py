# mypy: disable-error-code="no-untyped-call"
"""Attention of windows as a TIR kernel: queries in vector lanes, keys and channels in registers.

A window of a head is one task, or a part of its queries where there are few windows:
1. Keys and values are copied, run by run, to where a channel's pixels lie together; so are some
   queries, times the scale. Neighbouring windows do so together, for they share cache lines.
2. For a block of queries, scores of a few keys at a time: bias, mask, products over the depth. Each
   key has vectors of its own, so maximum and sum over the keys are taken lane by lane.
3. Powers of two of what is left of the maximum, and their sum.
4. The powers times the values, a few channels at a time, divided by the sum.

Where keys are many, 2 to 4 take a block of them at a time, and what was summed shrinks by the power
of what the maximum has grown (arXiv 2205.14135). So memory is linear in queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.attention_plan import (
    AttentionPlan,
    AttentionSizes,
    cut_evenly,
    plan_attention,
)
from distillc.codegen.kernels.builder import begin_kernel, operand, with_sizes
from distillc.codegen.kernels.token_runs import (
    OwnRows,
    TokenTable,
    spread_rows,
    store_parts,
)
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


class _Operands(NamedTuple):
    """The buffers of an attention; None for a bias or a mask that it does not have."""

    q: Any
    k: Any
    v: Any
    q_at: Any
    k_at: Any
    v_at: Any
    y_at: Any
    scale: Any
    bias: Any
    mask: Any
    mask_of: Any
    y: Any


def attention_kernel(
    sizes: AttentionSizes, target: Target, knobs: Knobs | None = None
) -> tirx.PrimFunc:
    """Return the kernel softmax(q kT scale + bias + mask) v for static shapes.

    Operands, float32 unless noted: q, k, v (channels, pixels); q_at (windows, runs) int32, the
    pixel where each run of queries begins; k_at and v_at, -1 for a run of zeros; y_at like q_at,
    where the results go; scale (heads,), times log2(e) like the next two; bias, a table of each of
    `biased`, if there is one; if there are masks, mask, a table of each, and mask_of (windows,)
    int32, -1 for none; see `AttentionSizes.table`. The result is (heads values, pixels). Each query
    needs a score that is finite.

    Knobs: `vectors`, `tile`, `block` and `together`, see `AttentionPlan`.
    """
    s, plan = sizes, plan_attention(sizes, target, knobs or Knobs())
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("attention")
        q, k, v = (
            operand(name, "float32", rows.channels, rows.pixels)
            for name, rows in (("q", s.q), ("k", s.k), ("v", s.v))
        )
        q_runs, k_runs = s.queries // s.query_run, s.keys // s.key_run
        counts = {"q_at": q_runs, "k_at": k_runs, "v_at": k_runs, "y_at": q_runs}
        q_at, k_at, v_at, y_at = (
            operand(name, "int32", s.windows, count) for name, count in counts.items()
        )
        scale = operand("scale", "float32", s.heads)
        bias = operand("bias", "float32", s.biased, *s.table_shape) if s.biased else None
        mask = operand("mask", "float32", s.masks, *s.table_shape) if s.masks else None
        mask_of = operand("mask_of", "int32", s.windows) if s.masks else None
        y = operand("y", "float32", s.heads * s.values, s.pixels)
        given = _Operands(q, k, v, q_at, k_at, v_at, y_at, scale, bias, mask, mask_of, y)
        groups = s.windows // plan.together
        with T.parallel(s.heads * groups * plan.parts) as task, T.sblock("attention"):
            T.reads()
            T.writes()
            head, window = task // (groups * plan.parts), task // plan.parts % groups
            windows = [window * plan.together + g for g in range(plan.together)]
            own = _Task(s, plan, given, target.lanes, head, windows)
            chunks = s.queries // plan.chunk // plan.parts
            with T.serial(chunks) as index:
                own.take_chunk((task % plan.parts * chunks + index) * plan.chunk)
    return with_sizes(builder.get(), s.flat())


class _Task:
    """A head of some windows: its keys and values are copied as it begins."""

    def __init__(
        self,
        sizes: AttentionSizes,
        plan: AttentionPlan,
        given: _Operands,
        lanes: int,
        head: Expr,
        windows: Sequence[Expr],
    ) -> None:
        self.sizes, self.plan, self.given = sizes, plan, given
        self.head, self.windows = head, windows
        s, together = sizes, plan.together
        self.keys, self.values = (spread_rows(d, together * s.keys) for d in (s.depth, s.values))
        for held, source, rows, table in (
            (self.keys, given.k, s.k, given.k_at),
            (self.values, given.v, s.v, given.v_at),
        ):
            TokenTable(table, s.key_run, lanes).copy_in(
                held, source, rows, head, windows, 0, s.keys
            )
        self.sources, self.goals = (
            TokenTable(table, s.query_run, lanes) for table in (given.q_at, given.y_at)
        )
        self.queries = spread_rows(s.depth, together * plan.chunk)
        self.results = None
        if not self.goals.holds_vectors(plan.lanes):
            self.results = spread_rows(s.values, together * plan.chunk)
        wide = min(plan.vectors, -(-plan.chunk // plan.lanes)) * plan.lanes
        self.scores = OwnRows(min(plan.block, s.keys), wide)
        self.first: Expr = tirx.IntImm("int32", 0)
        self.number: Expr = self.first

    def take_chunk(self, first: Expr) -> None:
        """Compute the results of `chunk` queries of each window, from `first` on."""
        s, plan, lanes = self.sizes, self.plan, self.plan.lanes
        own = (self.head, self.windows, first, plan.chunk)
        self.sources.copy_in(self.queries, self.given.q, s.q, *own, self.given.scale[self.head])
        with T.serial(plan.together) as number:
            self.first, self.number = first, number
            for section in cut_evenly(-(-plan.chunk // lanes), plan.vectors):
                with T.serial(section.pieces) as index:
                    begin = (section.start + index * section.size) * lanes
                    spots = [begin + v * lanes for v in range(section.size)]
                    if plan.chunk % lanes:
                        # The last vector begins earlier: some queries are computed twice.
                        spots[-1] = T.min(spots[-1], plan.chunk - lanes)
                    self._take_block(spots)
        if self.results is not None:
            row = self.head * s.values
            self.goals.copy_out(self.results, self.given.y, row, *own[1:])

    def _take_block(self, spots: Sequence[Expr]) -> None:
        """Compute the results of some vectors of queries, which begin at `spots` of the chunk."""
        lanes, keys = self.plan.lanes, self.sizes.keys
        maxima, sums = ([Vectors(1, lanes) for _ in spots] for _ in range(2))
        for most, total in zip(maxima, sums, strict=True):
            most[0] = constant(LEAST, lanes)
            total[0] = constant(0.0, lanes)
        if keys <= self.plan.block:
            self._score(spots, maxima, 0, keys)
            self._weigh(maxima, sums, keys)
            finish = self._finishing(spots, sums)
            for row, totals in self._products(len(spots), 0, keys):
                finish(row, [total[0] for total in totals])
            return
        held = OwnRows(self.sizes.values, len(spots) * lanes)
        with T.serial(self.sizes.values) as row:
            for v in range(len(spots)):
                held.store(row, v * lanes, constant(0.0, lanes), lanes)
        for section in cut_evenly(keys, self.plan.block):
            with T.serial(section.pieces) as index:
                start = section.start + index * section.size
                before = [keep(most[0]) for most in maxima]
                self._score(spots, maxima, start, section.size)
                shrunk = exp2([old - most[0] for old, most in zip(before, maxima, strict=True)])
                for total, factor in zip(sums, shrunk, strict=True):
                    total[0] = total[0] * factor
                self._weigh(maxima, sums, section.size)
                for row, totals in self._products(len(spots), start, section.size):
                    for v, (total, factor) in enumerate(zip(totals, shrunk, strict=True)):
                        sum_before = held.load(row, v * lanes, lanes)
                        held.store(row, v * lanes, sum_before * factor + total[0], lanes)
        finish = self._finishing(spots, sums)
        with T.serial(self.sizes.values) as row:
            finish(row, [held.load(row, v * lanes, lanes) for v in range(len(spots))])

    def _finishing(
        self, spots: Sequence[Expr], sums: Sequence[Vectors]
    ) -> Callable[[Expr, Sequence[Expr]], None]:
        """Return what stores the vectors of a channel, divided by the sums."""
        s, lanes, y = self.sizes, self.plan.lanes, self.given.y
        shares = [keep(constant(1.0, lanes) / total[0]) for total in sums]
        if self.results is not None:
            held, here = self.results, self.number * self.plan.chunk

            def hold(row: Expr, totals: Sequence[Expr]) -> None:
                for spot, total, share in zip(spots, totals, shares, strict=True):
                    held.store(row, here + spot, total * share, lanes)

            return hold
        window = self.windows[0] + self.number
        places = [self.goals.places(window, self.first + spot, lanes) for spot in spots]

        def store(row: Expr, totals: Sequence[Expr]) -> None:
            for some, total, share in zip(places, totals, shares, strict=True):
                store_parts(y, self.head * s.values + row, some, total * share, lanes)

        return store

    def _score(
        self,
        spots: Sequence[Expr],
        maxima: Sequence[Vectors],
        start: Expr | int,
        count: int,
    ) -> None:
        lanes = self.plan.lanes
        here, first_key = self.number * self.plan.chunk, self.number * self.sizes.keys + start
        for section in cut_evenly(count, self.plan.tile):
            with T.serial(section.pieces) as index:
                key = section.start + index * section.size
                accs = [[Vectors(1, lanes) for _ in spots] for _ in range(section.size)]
                self._begin(accs, spots, start + key)
                with T.serial(self.sizes.depth) as channel:
                    some = [keep(self.queries.load(channel, here + spot, lanes)) for spot in spots]
                    for j, own in enumerate(accs):
                        weight = broadcast(self.keys.load(channel, first_key + key + j), lanes)
                        for acc, vector in zip(own, some, strict=True):
                            acc[0] = acc[0] + weight * vector
                for j, own in enumerate(accs):
                    for v, (acc, most) in enumerate(zip(own, maxima, strict=True)):
                        most[0] = T.max(most[0], acc[0])
                        self.scores.store(key + j, v * lanes, acc[0], lanes)

    def _begin(
        self, accs: Sequence[Sequence[Vectors]], spots: Sequence[Expr], key: Expr | int
    ) -> None:
        lanes, given, window = self.plan.lanes, self.given, self.windows[0] + self.number

        def fill(masked: bool) -> None:
            for j, own in enumerate(accs):
                for acc, spot in zip(own, spots, strict=True):
                    query, group = self.first + spot, self.sizes.group
                    here = query // group, key + j, lane_index(query % group, lanes)
                    terms = []
                    if given.bias is not None:
                        terms.append(given.bias[self.head if self.sizes.biased > 1 else 0, *here])
                    if masked:
                        terms.append(given.mask[given.mask_of[window], *here])
                    acc[0] = sum(terms[1:], terms[0]) if terms else constant(0.0, lanes)

        if given.mask is None:
            fill(False)
            return
        with T.If(given.mask_of[window] >= 0):
            with T.Then():
                fill(True)
            with T.Else():
                fill(False)

    def _weigh(self, maxima: Sequence[Vectors], sums: Sequence[Vectors], count: int) -> None:
        lanes = self.plan.lanes
        with T.serial(count) as key:
            scores = [self.scores.load(key, v * lanes, lanes) for v in range(len(sums))]
            powers = exp2([score - most[0] for score, most in zip(scores, maxima, strict=True)])
            for v, (power, total) in enumerate(zip(powers, sums, strict=True)):
                self.scores.store(key, v * lanes, power, lanes)
                total[0] = total[0] + power

    def _products(
        self, vectors: int, start: Expr | int, count: int
    ) -> Iterator[tuple[Expr, list[Vectors]]]:
        """Yield the sums of a channel of `count` values times their powers, channel by channel."""
        lanes, first_key = self.plan.lanes, self.number * self.sizes.keys + start
        for section in cut_evenly(self.sizes.values, self.plan.tile):
            with T.serial(section.pieces) as index:
                row = section.start + index * section.size
                accs = [[Vectors(1, lanes) for _ in range(vectors)] for _ in range(section.size)]
                for acc in (acc for own in accs for acc in own):
                    acc[0] = constant(0.0, lanes)
                with T.serial(count) as key:
                    some = [keep(self.scores.load(key, v * lanes, lanes)) for v in range(vectors)]
                    for c, own in enumerate(accs):
                        weight = broadcast(self.values.load(row + c, first_key + key), lanes)
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
    return attention_kernel(AttentionSizes.from_flat(flat), target, knobs)
