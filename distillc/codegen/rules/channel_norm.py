"""Reductions over channels at every pixel: layer norm, mean, variance, softmax over channels.

Given:   for p, c: S[p] += X[c, p] ...; for c, p: Y[c, p] = f(X[c, p], S[p])
Result:  for each tile of pixels in parallel:
           X tile packed once, for it is read by several passes
           every block computed for this tile: for c: for p in vectors

Rows of X lie a power of two apart; without packing, passes after the first would miss the caches.
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from distillc.codegen.rules.base import (
    PARALLEL_MIN,
    Block,
    Iter,
    binding,
    describe,
    divisors,
    find_blocks,
    loads,
    loops_below,
    variables,
    vector_extent,
)
from distillc.targets.base import Target


def schedule_channel_norm(func: tirx.PrimFunc, target: Target) -> s_tir.Schedule | None:
    """Schedule a chain of blocks that share the contiguous axis, which none of them sums over."""
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    pixels = [_pixel_axis(block) for block in blocks]
    if not any(block.reduction for block in blocks) or any(axis is None for axis in pixels):
        return None
    count = pixels[-1].extent if pixels[-1] is not None else 0
    lanes = vector_extent(count, target.lanes)
    if any(axis is None or axis.extent != count for axis in pixels) or lanes == 1:
        return None
    shared = _shared_inputs(func, blocks)
    packs = [sch.cache_read(users[0], index, "global", users) for users, index in shared]
    channels = max(block.size // block.spatial_size for block in blocks)
    channels = max(channels, *(block.size // count for block in blocks))
    width = _tile_width(count, channels, lanes, target)
    last = pixels[-1]
    if last is None or last.loop is None:
        return None
    tile, _ = sch.split(last.loop, [None, width])
    before = [it.loop for it in blocks[-1].nest if it is not last]
    sch.reorder(tile, *before)
    for block in reversed(blocks[:-1]):
        sch.compute_at(block.rv, tile)
    for pack in packs:
        sch.compute_at(pack, tile)
    if sum(block.size for block in blocks) >= PARALLEL_MIN:
        sch.parallel(tile)
    for rv in [*packs, *(block.rv for block in blocks)]:
        _vectorize_pixels(sch, rv, tile, lanes)
    return sch


def _pixel_axis(block: Block) -> Iter | None:
    """Return the iteration along the last axis of a block's output and of all its inputs."""
    axes = {it.var: it for it in block.iters if not it.reduction}
    inner = axes.get(block.stmt.body.indices[-1])
    if inner is None or inner.loop is None:
        return None
    for load in loads(block.stmt.body.value):
        vector = load.indices[-1].same_as(inner.var)
        constant = not any(load.indices[-1].same_as(var) for var in axes)
        if not vector and not (constant and isinstance(load.indices[-1], tirx.IntImm)):
            return None
    return inner


def _shared_inputs(func: tirx.PrimFunc, blocks: list[Block]) -> list[tuple[list[SBlockRV], int]]:
    """Return, for each parameter that several blocks read, those blocks and its read number."""
    shared = []
    for param in func.params:
        users = [
            block for block in blocks if any(r.source.same_as(param) for r in block.stmt.reads)
        ]
        if len(users) > 1:
            reads = users[0].stmt.reads
            index = next(i for i, read in enumerate(reads) if read.source.same_as(param))
            shared.append(([block.rv for block in users], index))
    return shared


def _tile_width(count: int, channels: int, lanes: int, target: Target) -> int:
    """Return the pixels of a tile: a quarter of the second-level cache, at most 512.

    Each thread gets a few tiles, so that a slower core does not hold up the others.
    """
    limit = min(512, target.l2_kib * 256 // (4 * channels), count // (4 * target.threads))
    limit = max(lanes, limit)
    return next(d for d in divisors(count) if d <= limit and d % lanes == 0)


def _vectorize_pixels(sch: s_tir.Schedule, rv: SBlockRV, tile: LoopRV, lanes: int) -> None:
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
