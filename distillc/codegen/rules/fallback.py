"""Any other kernel: each block on its own, outer loops parallel, the last spatial axis in vectors.

Given:   for i, j, k: Y[i, j] += f(...)
Result:  for i in parallel: for j0, k: for j1 in vectorized(lanes): Y[i, j] += f(...)
"""

from __future__ import annotations

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.rules.base import (
    PARALLEL_MIN,
    Block,
    find_blocks,
    fuse,
    vector_extent,
)
from distillc.targets.base import Target


def schedule_fallback(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Schedule every block by itself; takes all functions that are plain loop nests."""
    sch = s_tir.Schedule(func)
    for block in find_blocks(sch):
        _schedule_block(sch, block, target)
    return sch


def _schedule_block(sch: s_tir.Schedule, block: Block, target: Target) -> None:
    spatial = [it for it in block.iters if it.loop is not None and not it.reduction]
    sums = [it.loop for it in block.iters if it.loop is not None and it.reduction]
    if not spatial:
        return
    outer = [it.loop for it in spatial[:-1]]
    tile, lane = spatial[-1].loop, None
    width = vector_extent(spatial[-1].extent, target.lanes)
    if width > 1:
        tile, lane = sch.split(tile, [None, width])
        sch.vectorize(lane)
    sch.reorder(*outer, tile, *sums, *([lane] if lane is not None else []))
    if block.size >= PARALLEL_MIN:
        sch.parallel(fuse(sch, outer or [tile]))
    if sums:
        sch.decompose_reduction(block.rv, sums[0])
