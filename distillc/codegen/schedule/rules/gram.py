"""Products of two matrices of rows, summed over many pixels: q kT of channel attention.

Given:   C[b, m, n] += Q[b, m, p] * K[b, n, p]; C' = epilogue(C)      (p contiguous in Q and K)
Result:  for each (chunk of p, b) in parallel:
           for each tile of m and n:
             acc[m, n, lanes] in registers; for p: acc += Q vector * K vector
         C = sum over chunks and lanes, then the epilogue

Neither operand is transposed, and the outputs being few, it is the long sum that is divided.
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.s_tir.schedule import SBlockRV

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    ComputeBlock,
    Iter,
    describe,
    divisors,
    find_blocks,
    fuse_loops,
    loops_below,
    product_operands,
    unroll_init,
    variables,
    vector_extent,
    vectorize_last,
)
from distillc.targets.base import Target

CHUNK = 2048
"""Pixels of one chunk, at most: a tile's rows of Q and K then fit the first-level cache."""


def schedule_gram(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Schedule a product of rows with at most small elementwise work after it."""
    # 1. Is it one, with a sum that is worth dividing?
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    axes = _find_rows(blocks[0])
    if axes is None or any(block.reduction for block in blocks[1:]):
        return None
    pixel = axes[2]
    lanes = vector_extent(pixel.extent, target.lanes)
    if lanes == 1 or pixel.extent <= 8 * lanes:  # one chunk would leave no sum
        return None
    # 2. The sum in two: over lanes, which stay apart to the end, and over chunks for the threads.
    total = blocks[0].rv
    rank = len(blocks[0].stmt.body.indices)
    limit = max(8 * lanes, min(CHUNK, pixel.extent // (2 * target.threads)))
    steps = list(divisors(pixel.extent // lanes))
    chunk = knobs.choose(
        "chunk",
        [d for d in steps if d >= 8 and d * lanes <= min(4 * CHUNK, pixel.extent // 2)],
        next(d for d in steps if d * lanes <= limit),
        seen=False,
    )
    _, _, lane = sch.split(pixel.loop, [None, chunk, lanes])
    by_lane = sch.rfactor(lane, rank)
    outer = next(it for it in describe(sch, by_lane).nest if it.reduction)
    partial = sch.rfactor(outer.loop, 0)

    # 3. Partial sums in registers, then their sum, then the epilogue.
    _schedule_partial(sch, partial, target, knobs)
    _schedule_sums(sch, total, by_lane, target)
    for block in blocks[1:]:
        vectorize_last(sch, sch.get_loops(block.rv)[-1], target.lanes)
    return sch


def _schedule_partial(sch: s_tir.Schedule, rv: SBlockRV, target: Target, knobs: Knobs) -> None:
    """Schedule partial[chunk, b.., m, n, lane] += Q * K: registers hold a tile of m and n."""
    block = describe(sch, rv)
    by_var = {it.var: it for it in block.iters}
    axes = [by_var[index] for index in block.stmt.body.indices if isinstance(index, tirx.Var)]
    chunk, *batch, row_axis, column_axis, lane_axis = [it for it in axes if it.loop is not None]
    sums = [it.loop for it in block.nest if it.reduction]
    height, _ = tile_shape(row_axis.extent, column_axis.extent, target)
    height = knobs.choose("height", [d for d in divisors(row_axis.extent) if d <= 8], height)
    room = (target.registers - 2) // (height + 1)
    widths = [d for d in divisors(column_axis.extent) if d <= min(8, room)]
    width = knobs.choose("width", widths, widths[0])
    output = sch.cache_write(rv, 0, "local")
    row_outer, row_inner = sch.split(row_axis.loop, [None, height])
    column_outer, column_inner = sch.split(column_axis.loop, [None, width])
    outer = [chunk.loop, *[it.loop for it in batch]]
    sch.reorder(*outer, row_outer, column_outer, *sums, row_inner, column_inner, lane_axis.loop)
    sch.parallel(fuse_loops(sch, outer))
    sch.vectorize(lane_axis.loop)
    sch.unroll(row_inner)
    sch.unroll(column_inner)
    sch.reverse_compute_at(output, column_outer)
    own = loops_below(sch, output, column_outer)
    sch.vectorize(own[-1])
    for loop in own[:-1]:
        sch.unroll(loop)
    unroll_init(sch, sch.decompose_reduction(rv, sums[0]))


def _schedule_sums(sch: s_tir.Schedule, total: SBlockRV, by_lane: SBlockRV, target: Target) -> None:
    """Add up the chunks in vectors, then the lanes, row by row."""
    rows = [it.loop for it in describe(sch, total).nest if not it.reduction][:-1]
    row = fuse_loops(sch, rows)
    sch.compute_at(by_lane, row)
    block = describe(sch, by_lane)
    sums = [it.loop for it in block.nest if it.reduction]
    lane = sch.get_loops(by_lane)[-1]
    sch.reorder(*sums, lane)
    sch.vectorize(lane)
    sch.parallel(row)
    sch.decompose_reduction(by_lane, sums[0])


def tile_shape(rows: int, columns: int, target: Target) -> tuple[int, int]:
    """Return the accumulators' rows and columns: the most products for each vector loaded."""
    best = (0.0, 1, 1)
    for height in divisors(rows):
        for width in divisors(columns):
            if height * width + width + 2 <= target.registers and height <= 8 and width <= 8:
                best = max(best, (height * width / (height + width), height, width))
    return best[1], best[2]


def _find_rows(block: ComputeBlock) -> tuple[Iter, Iter, Iter] | None:
    """Recognise a product summed over the contiguous axis of both operands: (m, n, p)."""
    operands = product_operands(block)
    sums = [it for it in block.iters if it.reduction and it.loop is not None]
    if operands is None or len(sums) != 1:
        return None
    first, second = operands
    if any(not load.indices or not load.indices[-1].same_as(sums[0].var) for load in operands):
        return None
    spatial = [it for it in block.iters if not it.reduction and it.loop is not None]
    own = [[it for it in spatial if it.var in variables(load.indices)] for load in (first, second)]
    rows = [it for it in own[0] if it not in own[1]]
    columns = [it for it in own[1] if it not in own[0]]
    if len(rows) != 1 or len(columns) != 1:
        return None
    return rows[0], columns[0], sums[0]
