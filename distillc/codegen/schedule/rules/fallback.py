"""Any other kernel: each block on its own, outer loops parallel, the last spatial axis in vectors.

Given:   for i, j, k: Y[i, j] += f(...)
Result:  for i in parallel: for j0, k: for j1 in vectorized(lanes): Y[i, j] += f(...)
"""

from __future__ import annotations

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import find_blocks, schedule_block
from distillc.targets.base import Target


def schedule_fallback(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Schedule every block by itself; takes all functions that are plain loop nests."""
    sch = s_tir.Schedule(func)
    for block in find_blocks(sch):
        schedule_block(sch, block, target)
    return sch
