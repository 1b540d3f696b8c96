"""Reductions over channels at every pixel: layer norm, mean, variance, softmax over channels.

Given:   for p, c: S[p] += X[c, p] ...; for c, p: Y[c, p] = f(X[c, p], S[p])
Result:  for each tile of pixels in parallel:
           X tile packed once, for it is read by several passes
           every block computed for this tile: for c: for p in vectors

Rows of X lie a power of two apart; without packing, passes after the first would miss the caches.
"""

from __future__ import annotations

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    PARALLEL_MIN,
    divisors,
    find_blocks,
    vector_extent,
)
from distillc.codegen.schedule.rules.pixels import pixel_axis, shared_inputs, vectorize_pixels
from distillc.targets.base import Target


def schedule_channel_norm(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Schedule a chain of blocks that share the contiguous axis, which none of them sums over."""
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    pixels = [pixel_axis(block) for block in blocks]
    if not any(block.reduction for block in blocks) or any(axis is None for axis in pixels):
        return None
    count = pixels[-1].extent if pixels[-1] is not None else 0
    lanes = vector_extent(count, target.lanes)
    if any(axis is None or axis.extent != count for axis in pixels) or lanes == 1:
        return None
    shared = shared_inputs(func, blocks, count)
    packs = [sch.cache_read(users[0], index, "global", users) for users, index in shared]
    channels = max(block.size // block.spatial_size for block in blocks)
    channels = max(channels, *(block.size // count for block in blocks))
    widths = [d for d in divisors(count) if lanes <= d <= 1024 and d % lanes == 0]
    width = knobs.choose("width", widths, _tile_width(count, channels, lanes, target), seen=False)
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
        vectorize_pixels(sch, rv, tile, lanes)
    return sch


def _tile_width(count: int, channels: int, lanes: int, target: Target) -> int:
    """Return the pixels of a tile: a quarter of the second-level cache, at most 512.

    Each thread gets a few tiles, so that a slower core does not hold up the others.
    """
    limit = min(512, target.l2_kib * 256 // (4 * channels), count // (4 * target.threads))
    limit = max(lanes, limit)
    return next(d for d in divisors(count) if d <= limit and d % lanes == 0)
