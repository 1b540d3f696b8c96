"""Small matrix products with long sums, one operand with its columns contiguous.

Given:   C[b, m, n] += Q[b, m, k] * K[b, k, n]              (m, n: channels; k: pixels)
Result:  for each (chunk of k, b) in parallel:
           for each block of m and n: partial[chunk, b, m, n] in registers over k
         C = sum of the partial products over the chunks

The outputs are too few to feed the cores; the long sum is what is divided.
"""

from __future__ import annotations

from math import prod

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    box_heights,
    copy_tile,
    describe,
    divisors,
    find_blocks,
    fuse_loops,
    unroll_init,
    vectorize_last,
)
from distillc.codegen.schedule.rules.contraction import (
    choose_tile,
    find_contraction,
)
from distillc.targets.base import Target

# Pixels of one chunk: both operands of 48 channels then fit a second-level cache.
CHUNK = 1024


def is_long(pixels: int, rows: int, columns: int) -> bool:
    """Whether a sum is long enough against its outputs to be divided among threads."""
    return pixels >= 8 * rows and columns <= 256


def schedule_long_sum(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Schedule a lone contraction whose sum is long against its output."""
    # 1. Is it one, with a sum that is worth dividing?
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    axes = find_contraction(blocks[0]) if len(blocks) == 1 else None
    if axes is None or len(axes.rows) != 1 or len(axes.columns) != 1:
        return None
    pixels = prod(it.extent for it in axes.sums)
    if str(blocks[0].output.ty.dtype) == "float16":
        return None  # as a plain contraction, its chunks are added up in float32
    if not is_long(pixels, axes.rows[0].extent, axes.columns[0].extent):
        return None
    # 2. The sum in chunks for the threads.
    total = blocks[0].rv
    total_sum = fuse_loops(sch, [it.loop for it in axes.sums])
    lengths = [d for d in divisors(pixels) if d <= 4 * CHUNK]
    default = next(d for d in lengths if d <= CHUNK)
    chunk = knobs.choose("chunk", [d for d in lengths if d >= CHUNK // 8], default, seen=False)
    chunks, _ = sch.split(total_sum, [None, chunk])
    partial = sch.rfactor(chunks, 0)
    output = sch.cache_write(partial, 0, "local")

    # 3. Partial sums in registers, then the sum over the chunks in vectors.
    _schedule_partial(sch, partial, output, target, knobs)
    final = describe(sch, total)
    outer = [it.loop for it in final.nest if not it.reduction]
    sums = [it.loop for it in final.nest if it.reduction]
    sch.reorder(*outer[:-1], *sums, outer[-1])
    vectorize_last(sch, outer[-1], target.lanes)
    sch.decompose_reduction(total, sums[0])
    return sch


def _schedule_partial(
    sch: s_tir.Schedule,
    rv: s_tir.schedule.SBlockRV,
    output: s_tir.schedule.SBlockRV,
    target: Target,
    knobs: Knobs,
) -> None:
    """Schedule partial[chunk, b.., m, n] += Q * K: registers hold a tile of m and n."""
    block = describe(sch, rv)
    chunk = next(it for it in block.nest if it.var.same_as(block.stmt.body.indices[0]))
    rest = [it for it in block.nest if it is not chunk and not it.reduction]
    sums = [it.loop for it in block.nest if it.reduction]
    row, column = rest[-2:]
    height, vectors, lanes = choose_tile(box_heights([row.extent]), column.extent, target, knobs)
    row_outer, row_inner = sch.split(row.loop, [None, height])
    column_outer, vector, lane = sch.split(column.loop, [None, vectors, lanes])
    outer = [chunk.loop, *[it.loop for it in rest[:-2]]]
    sch.reorder(*outer, row_outer, column_outer, *sums, row_inner, vector, lane)
    sch.parallel(fuse_loops(sch, outer))
    if lanes > 1:
        sch.vectorize(lane)
    sch.unroll(row_inner)
    sch.unroll(vector)
    sch.reverse_compute_at(output, column_outer)
    for loop in copy_tile(sch, output, column_outer, lanes):
        sch.unroll(loop)
    unroll_init(sch, sch.decompose_reduction(rv, sums[0]))
