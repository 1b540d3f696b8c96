"""Reductions over the contiguous axis: L2 norm, softmax, layer norm of tokens, pooling.

Given:   for i, k: S[i] += X[i, k]; for i, k: Y[i, k] = f(X[i, k], S[i])
Result:  for i in parallel:
           for k0: partial[lane] += X[i, k0 * lanes + lane] in vectors, then these by fours
           for k in vectors: Y[i, k] = f(...)
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    PARALLEL_MIN,
    ComputeBlock,
    describe,
    find_blocks,
    fuse_loops,
    loops_below,
    variables,
    vector_extent,
)
from distillc.targets.base import Target


def schedule_row_reduction(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Schedule blocks that share their leading axes and sum over the last axis of their inputs."""
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    sums = [block for block in blocks if block.reduction]
    if not sums or not all(sums_rows(block) for block in sums):
        return None
    rows = [it for it in sums[0].nest if not it.reduction]
    extents = [it.extent for it in rows]
    if not rows or any(_leading(block, len(rows)) != extents for block in blocks):
        return None
    size = sum(block.size for block in blocks)
    for block in sums:
        _split_lanes(sch, block, target, knobs)
    order = [describe(sch, rv) for rv in sch.get_child_blocks(sch.get_sblock("root"))]
    last = order[-1]
    row = fuse_loops(sch, [it.loop for it in last.nest[: len(rows)]])
    if size >= PARALLEL_MIN:
        sch.parallel(row)
    for block in reversed(order[:-1]):
        sch.compute_at(block.rv, row)
    for block in order:
        _schedule_block(sch, block.rv, row, target)
    return sch


def _schedule_block(sch: s_tir.Schedule, rv: SBlockRV, row: LoopRV, target: Target) -> None:
    """Vectorise one block below the row loop; sums stay outside the vectors."""
    below = {sch.get(loop).loop_var for loop in loops_below(sch, rv, row)}
    inside = [it for it in describe(sch, rv).nest if sch.get(it.loop).loop_var in below]
    sums = [it.loop for it in inside if it.reduction]
    own = [it for it in inside if not it.reduction and it.extent > 1][-1:]
    lanes = vector_extent(own[0].extent, target.lanes) if own else 1
    if lanes == 1:
        return  # one number for each row, or a sum over the lanes of a partial sum
    vector, lane = sch.split(own[0].loop, [None, lanes])
    sch.reorder(*sums, vector, lane)
    sch.vectorize(lane)
    if sums:
        sch.unroll(vector)
        sch.decompose_reduction(rv, sums[0])


def sums_rows(block: ComputeBlock) -> bool:
    """Whether a block's single sum runs along the last axis of a buffer, alone in its index."""
    sums = [it for it in block.nest if it.reduction]
    if len(sums) != 1:
        return False
    along = [
        read
        for read in block.stmt.reads
        if len(read.region) and sums[0].var in variables(read.region[len(read.region) - 1].min)
    ]
    return bool(along)


def _leading(block: ComputeBlock, count: int) -> list[int]:
    """Return the extents of a block's first axes that have loops."""
    spatial = [it.extent for it in block.nest if not it.reduction]
    return spatial[:count]


def _split_lanes(sch: s_tir.Schedule, block: ComputeBlock, target: Target, knobs: Knobs) -> None:
    """Turn one running sum into vectors of partial sums, added up at the end."""
    loop = next(it.loop for it in block.nest if it.reduction)
    extent = int(sch.get(loop).extent)
    lanes = vector_extent(extent, target.lanes)
    if lanes == 1:
        return
    # Four independent vectors hide the latency of the addition.
    options = [d for d in (8, 4, 2, 1) if extent % (lanes * d) == 0]
    vectors = knobs.choose("vectors", options, next(d for d in options if d <= 4))
    count = lanes * vectors
    while True:
        _, inner = sch.split(loop, [None, count])
        sch.rfactor(inner, len(block.stmt.writes[0].region))
        if count < 16 or count % 4:
            return
        # One after the other they would take longer than a short row.
        count //= 4
        loop = next(it.loop for it in describe(sch, block.rv).nest if it.reduction)
