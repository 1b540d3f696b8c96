"""Elementwise kernels, and copies: transpose, concat, split, pixel shuffle.

Given:   for i, j: Y[i, j] = f(X[i, j], ...)
Result:  for i in parallel: for j0: for j1 in vectorized(lanes): Y[i, j] = f(...)

Given:   for i, j: Y[i, j] = X[j, i]
Result:  for i0, j0 in parallel: for i1: for j1 in vectorized(few lanes): Y[i, j] = X[j, i]

so that the cache lines of few rows of X are read whole.
"""

from __future__ import annotations

from tvm import s_tir, sym, tirx
from tvm.s_tir.schedule import LoopRV

from distillc.codegen.kernels.token_runs import LINE
from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    PARALLEL_MIN,
    ComputeBlock,
    Iter,
    divisors,
    find_blocks,
    fuse_loops,
    loads,
    vector_extent,
    vectorize_last,
)
from distillc.codegen.schedule.rules.flatten import int64, static_shape, substitute
from distillc.targets.base import Target

ROWS = 8
"""Rows whose lines are kept at once: with a power of two between them, a cache holds not many."""


def schedule_elementwise(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Schedule a function without reductions; what feeds its last block stays small and serial."""
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    if any(block.reduction for block in blocks):
        return None
    for block in blocks:
        loops = sch.get_loops(block.rv)
        if not loops:
            continue
        along = _line_axis(block)
        if along is not None:
            outer = _tile(sch, block, along, target)
            if block.size >= PARALLEL_MIN:
                sch.parallel(fuse_loops(sch, outer))
            continue
        outer = [*loops[:-1], vectorize_last(sch, loops[-1], target.lanes)]
        if block.size >= PARALLEL_MIN:
            sch.parallel(fuse_loops(sch, outer if len(outer) == 1 else outer[:-1]))
    return sch


def _line_axis(block: ComputeBlock) -> Iter | None:
    """Return the axis along which a block reads lines, where each step of its last leaves one."""
    if len(block.nest) < 2:
        return None
    *before, last = block.nest
    for load in loads(block.stmt.body.value):
        shape = static_shape(load.source)
        if shape is None:
            continue
        flat: tirx.Expr = int64(0)
        for index, extent in zip(load.indices, shape, strict=True):
            flat = flat * int64(extent) + index
        if _step(flat, block, last) <= LINE // 4:
            continue
        for it in before[::-1]:
            if it.extent >= LINE // 4 and 0 < _step(flat, block, it) <= LINE // 4:
                return it
    return None


def _step(flat: tirx.Expr, block: ComputeBlock, axis: Iter) -> int:
    """Return how far a step along an axis goes in memory, 0 where that is looked up."""
    middle = {it.var: int64(it.extent // 2) for it in block.iters}
    ends = [substitute(flat, {**middle, axis.var: int64(at)}) for at in (0, 1)]
    found = sym.Analyzer().simplify(ends[1] - ends[0])
    return abs(int(found)) if isinstance(found, tirx.IntImm) else 0


def _tile(sch: s_tir.Schedule, block: ComputeBlock, along: Iter, target: Target) -> list[LoopRV]:
    """Take a line of each of a few rows at a time; return the loops around."""
    last = block.nest[-1]
    lanes = vector_extent(last.extent, min(target.lanes, ROWS))
    outer = [it.loop for it in block.nest if it is not along and it is not last]
    inner = next(d for d in divisors(along.extent) if d <= LINE)
    line_outer, line = sch.split(along.loop, [None, inner])
    last_outer, lane = sch.split(last.loop, [None, lanes])
    sch.reorder(*outer, line_outer, last_outer, line, lane)
    if lanes > 1:
        sch.vectorize(lane)
    return [*outer, line_outer, last_outer]
