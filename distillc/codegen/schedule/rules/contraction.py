"""GEMM-like kernels: 1x1 convolution, attention times values, linear layers.

Given:   C[.., m, n] += W[.., m, k] * X[.., k, n]           (n contiguous in X and C)
Result:  for each (batch, tile of n, share of the rows where tiles are few) in parallel:
           pack X[all k, tile]
           for each block of rows:
             acc[rows, tile] in registers; for k: acc += broadcast(W) * X vectors
             epilogue (residual add, ...) on the way to memory

The tile is as many vectors and rows as the register file holds.

Not done here: W is not packed, it is read as it lies (`fold_layouts` has laid it out); the sum is
not divided among threads, which is what `gram` and `long_sum` do where outputs are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    ComputeBlock,
    Iter,
    box_heights,
    copy_tile,
    divisors,
    find_blocks,
    fuse_loops,
    is_padding,
    product_operands,
    take_epilogue,
    unroll_init,
    variables,
    vector_extent,
)
from distillc.codegen.schedule.rules.chunks import add_in_single, sum_in_chunks
from distillc.codegen.schedule.rules.pixels import shared_inputs, vectorize_pixels
from distillc.codegen.schedule.rules.stencil import place_stencils
from distillc.targets.base import Target


@dataclass(frozen=True)
class Contraction:
    """The axes of a product of two buffers, summed: C[batch, rows, columns] over `sums`.

    `packed` is the number, among the block's reads, of the operand that holds the columns.
    """

    batch: tuple[Iter, ...]
    rows: tuple[Iter, ...]
    columns: tuple[Iter, ...]
    sums: tuple[Iter, ...]
    packed: int


def find_contraction(block: ComputeBlock) -> Contraction | None:
    """Recognise `C += A * B` with plain indices, and columns contiguous in C and one operand."""
    operands = product_operands(block)
    store = block.stmt.body
    if operands is None or not all(each.indices for each in (store, *operands)):
        return None
    for packed, other in (operands, operands[::-1]):
        inner = store.indices[-1]
        accesses = [store.indices, packed.indices, other.indices]
        plain = all(
            isinstance(index, tirx.Var | tirx.IntImm) for access in accesses for index in access
        )
        if not plain or not packed.indices[-1].same_as(inner):
            continue
        axes: dict[tuple[bool, bool, bool], list[Iter]] = {}
        for it in block.iters:
            if it.loop is not None:
                key = tuple(any(it.var.same_as(i) for i in access) for access in accesses)
                axes.setdefault((key[0], key[1], key[2]), []).append(it)
        batch = axes.pop((True, True, True), [])
        columns = axes.pop((True, True, False), [])
        rows = axes.pop((True, False, True), [])
        sums = axes.pop((False, True, True), [])
        if axes or not rows or not sums or not any(it.var.same_as(inner) for it in columns):
            continue
        sources = [read.source for read in block.stmt.reads]
        number = next(i for i, source in enumerate(sources) if source.same_as(packed.source))
        return Contraction(tuple(batch), tuple(rows), tuple(columns), tuple(sums), number)
    return None


def register_tile(heights: Sequence[int], columns: int, target: Target) -> tuple[int, int, int]:
    """Return (rows, vectors, lanes) of the accumulator tile that loads least per multiply-add.

    Accumulators, the vectors of one k and a broadcast must fit the register file; both extents
    are divided exactly, so that no guard stands in a vector loop.

    Args:
        heights: The numbers of rows to choose from, the most first; 1 is among them.
        columns: The extent of the columns.
        target: Decides lanes and registers.
    """
    lanes = vector_extent(columns, target.lanes)
    if lanes == 1:
        return next(d for d in heights if d <= 4), columns, 1
    best = (0.0, 1, 1)
    for vectors in (4, 3, 2, 1):
        if columns % (vectors * lanes):
            continue
        room = (target.registers - vectors - 1) // vectors
        height = next(d for d in heights if d <= room)
        best = max(best, (height * vectors / (height + vectors), height, vectors))
    return best[1], best[2], lanes


def choose_tile(
    heights: Sequence[int], columns: int, target: Target, knobs: Knobs
) -> tuple[int, int, int]:
    """Return (rows, vectors, lanes) of the accumulator tile; see `register_tile`."""
    height, vectors, lanes = register_tile(heights, columns, target)
    if lanes == 1:
        return height, vectors, lanes
    most = min(8, (target.registers - 1) // 2)  # a row of accumulators beside its operand
    widths = [each for each in range(1, most + 1) if columns % (each * lanes) == 0]
    vectors = knobs.choose("vectors", widths, vectors)
    room = (target.registers - vectors - 1) // vectors
    fitting = [d for d in heights if d <= room]
    return knobs.choose("height", fitting, fitting[0]), vectors, lanes


def packed_tiles(tiles: int, tile_bytes: int, target: Target) -> int:
    """Return how many neighbouring tiles to pack at once: an eighth of the second-level cache.

    Longer runs of pixels cost fewer pages and make fuller bursts where rows lie far apart; but
    each thread gets a few, so that a slower core does not hold up the others.
    """
    limit = max(1, min(8, target.l2_kib * 128 // tile_bytes, tiles // (4 * target.threads)))
    return next(d for d in divisors(tiles) if d <= limit)


def row_shares(blocks: int, height: int, tasks: int, target: Target) -> int:
    """Return how many tasks share the rows of a tile, so that each thread has one.

    Each of them packs the tile, which costs little beside 32 rows.
    """
    fitting = [d for d in divisors(blocks) if blocks // d * height >= 32]
    return min((d for d in fitting if tasks * d >= target.threads), default=max(fitting, default=1))


def schedule_contraction(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Schedule one contraction; what is computed before it makes its packed operand."""
    # 1. Is it one? Before the product only what makes its packed operand, after it one epilogue.
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    number = next((i for i, block in enumerate(blocks) if find_contraction(block)), None)
    if (
        number is None
        or len(blocks) > number + 2
        or blocks[-1].reduction > (number + 1 == len(blocks))
    ):
        return None
    axes = find_contraction(blocks[number])
    assert axes is not None
    before, rv = blocks[:number], blocks[number].rv
    packed = blocks[number].stmt.reads[axes.packed].source
    pack_block = next((block for block in before if block.output.same_as(packed)), None)
    if before and pack_block is None:
        return None
    stencil = any(is_padding(block) for block in before)
    if stencil and len(axes.columns) < 2:  # an image of one row has no lines to share
        return None
    if stencil and pack_block and not variables(pack_block.stmt.body.indices[1]):
        return None  # an image of one channel is padded by itself
    if stencil and any(
        block.reduction and all(it.extent == 1 for it in block.iters if it.reduction)
        for block in before
    ):
        return None  # a 1x1 convolution of one channel has no window to unroll
    epilogue = take_epilogue(sch, blocks[number], blocks[number + 1 :], target)
    # 2. Copies in memory: inputs that several producers read, and the packed operand.
    shared = [] if stencil else shared_inputs(func, before, axes.columns[-1].extent)
    copies = [sch.cache_read(users[0], index, "global", users) for users, index in shared]
    pack = pack_block.rv if pack_block else sch.cache_read(rv, axes.packed, "global", [rv])

    # 3. A tile of accumulators in registers, and how many tiles share what is packed.
    rows = fuse_loops(sch, [it.loop for it in axes.rows])
    column = axes.columns[-1]
    sums = [it.loop for it in axes.sums]
    # The tile is written back as a box of the rows' axes.
    heights = box_heights([it.extent for it in axes.rows])
    height, vectors, lanes = choose_tile(heights, column.extent, target, knobs)
    depth = prod(it.extent for it in axes.sums)
    row_outer, row_inner = sch.split(rows, [None, height])
    tiles = column.extent // (vectors * lanes)
    image_rows: list[LoopRV] = []
    outer = [it.loop for it in axes.batch]
    if stencil:  # whole rows of the image: their neighbours are read once
        run, step_bytes = tiles, depth * column.extent * 4
        count = axes.columns[-2].extent
        limit = max(1, min(4, target.l2_kib * 512 // step_bytes, count // (2 * target.threads)))
        lines = knobs.choose(
            "lines",
            [d for d in divisors(count) if d <= 16],
            next(d for d in divisors(count) if d <= limit),
            seen=False,
        )
        above, inside = sch.split(axes.columns[-2].loop, [None, lines])
        outer += [*[it.loop for it in axes.columns[:-2]], above]
        image_rows = [inside]
    else:
        run = knobs.choose(
            "run",
            [d for d in divisors(tiles) if d <= 32],
            packed_tiles(tiles, depth * vectors * lanes * 4, target),
            seen=False,
        )
        outer += [it.loop for it in axes.columns[:-1]]
    tile, step, vector, lane = sch.split(column.loop, [None, run, vectors, lanes])
    outer.append(tile)
    blocks_of_rows, tasks = (
        prod(int(sch.get(loop).extent) for loop in loops) for loops in ([row_outer], outer)
    )
    shares = row_shares(blocks_of_rows, height, tasks, target)
    if shares > 1:
        share, row_outer = sch.split(row_outer, [shares, None])
        outer.append(share)
    sch.reorder(*outer, row_outer, *image_rows, step, *sums, row_inner, vector, lane)
    tile = fuse_loops(sch, outer)
    # Rows of several axes are no box: a chunk would compute more of them than there are.
    held = tile, step, row_inner, vector, lane
    chunks = sum_in_chunks(sch, rv, sums, held) if len(axes.rows) == 1 else None
    if chunks:
        tile, step, row_inner, vector, lane = chunks.kept
        sums = [chunks.loop]
    # 4. Where each block stands, and what is parallel, in vectors and unrolled.
    sch.compute_at(pack, tile)
    sch.reverse_compute_at(epilogue, step)
    sch.parallel(tile)
    if lanes > 1:
        sch.vectorize(lane)
    sch.unroll(row_inner)
    sch.unroll(vector)
    for loop in copy_tile(sch, epilogue, step, lanes):
        # The accumulators stay in registers only if every access has a constant index.
        sch.unroll(loop)
    unroll_init(sch, sch.decompose_reduction(rv, sums[0]))
    # 5. What makes the packed operand, for one tile at a time.
    if stencil:
        place_stencils(sch, before, pack, tile, target, knobs)
    elif before:
        for block in reversed(before):
            if block is not pack_block:
                sch.compute_at(block.rv, tile)
        for copy in copies:
            sch.compute_at(copy, tile)
        for each in [*copies, *(block.rv for block in before)]:
            vectorize_pixels(sch, each, tile, lanes)
    else:
        copy_tile(sch, pack, tile, lanes)
    return add_in_single(sch, chunks) if chunks else sch
