"""What rules for kernels that work pixel by pixel share: the contiguous axis, and its vectors."""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from distillc.codegen.schedule.rules.base import (
    ComputeBlock,
    Iter,
    binding,
    describe,
    loads,
    loops_below,
    variables,
)


def pixel_axis(block: ComputeBlock) -> Iter | None:
    """Return the iteration along the last axis of a block's output and of all its inputs."""
    axes = {it.var: it for it in block.iters if not it.reduction}
    place = block.stmt.body.indices
    inner = axes.get(place[-1]) if place else None
    if inner is None or inner.loop is None:
        return None
    for load in loads(block.stmt.body.value):
        if not load.indices:  # one number for all
            continue
        vector = load.indices[-1].same_as(inner.var)
        constant = not any(load.indices[-1].same_as(var) for var in axes)
        if not vector and not (constant and isinstance(load.indices[-1], tirx.IntImm)):
            return None
    return inner


def shared_inputs(
    func: tirx.PrimFunc, blocks: list[ComputeBlock], pixels: int
) -> list[tuple[list[SBlockRV], int]]:
    """Return, for each parameter that several blocks read, those blocks and its read number.

    Parameters whose contiguous axis has other than so many pixels have no rows to pack. LLVM has no
    vectors of truth values in memory.
    """
    shared = []
    for param in func.params:
        if not param.shape or param.shape[-1] != pixels or param.dtype == "bool":
            continue
        users = [
            block for block in blocks if any(r.source.same_as(param) for r in block.stmt.reads)
        ]
        if len(users) > 1:
            reads = users[0].stmt.reads
            index = next(i for i, read in enumerate(reads) if read.source.same_as(param))
            shared.append(([block.rv for block in users], index))
    return shared


def vectorize_pixels(sch: s_tir.Schedule, rv: SBlockRV, tile: LoopRV, lanes: int) -> None:
    """Order a block's loops: runs of pixels, channels, vectors (four stay in registers)."""
    block = describe(sch, rv)
    used = variables(binding(sch, rv, block.stmt.body.indices[-1]))
    pixels = next(lp for lp in loops_below(sch, rv, tile) if sch.get(lp).loop_var in used)
    width = int(sch.get(pixels).extent)
    sums = [it.loop for it in block.nest if it.reduction]
    if not sums:
        _, lane = sch.split(pixels, [None, lanes])
        sch.vectorize(lane)
        return
    vectors = next(d for d in (4, 2, 1) if (width // lanes) % d == 0)
    run, vector, lane = sch.split(pixels, [None, vectors, lanes])
    sch.reorder(run, *sums, vector, lane)
    sch.vectorize(lane)
    sch.unroll(vector)
    sch.decompose_reduction(rv, sums[0])
