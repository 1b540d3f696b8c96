"""Elementwise kernels, and copies: transpose, concat, split, pixel shuffle.

Given:   for i, j: Y[i, j] = f(X[i, j], ...)
Result:  for i in parallel: for j0: for j1 in vectorized(lanes): Y[i, j] = f(...)
"""

from __future__ import annotations

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    PARALLEL_MIN,
    find_blocks,
    fuse_loops,
    vectorize_last,
)
from distillc.targets.base import Target


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
        outer = [*loops[:-1], vectorize_last(sch, loops[-1], target.lanes)]
        if block.size >= PARALLEL_MIN:
            sch.parallel(fuse_loops(sch, outer if len(outer) == 1 else outer[:-1]))
    return sch
