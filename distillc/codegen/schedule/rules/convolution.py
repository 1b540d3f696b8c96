"""Dense and depthwise k x k convolutions, NCHW, with zero padding or without any.

Given:   P = pad(X) or X; Y[co, y, x] += P[ci, y + ry, x + rx] * W[co, ci, ry, rx]; Y' = epilogue(Y)
Result:  for each tile of rows (depthwise: each channel and tile of rows) in parallel:
           P = pad(X) for this tile only: zeros, then rows copied in vectors
           for each block of co, each row, each run of x:
             acc[co, x] in registers; for ci, ry, rx: acc += broadcast(W) * P vectors
             epilogue on the way to memory

Not done here: Winograd's and Fourier's transforms; weights are not packed; the sum over channels is
not divided among threads.
"""

from __future__ import annotations

from typing import NamedTuple

from tvm import s_tir, tirx
from tvm.ir import TensorLoad
from tvm.s_tir.schedule import LoopRV, SBlockRV

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
from distillc.codegen.schedule.rules.chunks import Chunks, add_in_single, sum_in_chunks
from distillc.codegen.schedule.rules.contraction import choose_tile
from distillc.codegen.schedule.rules.stencil import place_padding, strip_rows
from distillc.targets.base import Target


def schedule_convolution(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Schedule pad, convolution and at most one elementwise epilogue."""
    # 1. Is it one? Padding, a window that moves over an image, at most one epilogue.
    sch = s_tir.Schedule(func)
    blocks = find_blocks(sch)
    pad = blocks.pop(0) if is_padding(blocks[0]) else None
    if not 1 <= len(blocks) <= 2:
        return None
    conv = blocks[0]
    operands = product_operands(conv)
    if operands is None or (len(blocks) == 2 and blocks[1].reduction):
        return None
    spatial = [it for it in conv.iters if it.loop is not None and not it.reduction]
    sums = [it for it in conv.iters if it.loop is not None and it.reduction]
    if len(spatial) < 3 or not sums:
        return None
    if not all(isinstance(index, tirx.Var | tirx.IntImm) for index in conv.stmt.body.indices):
        return None
    channel, row, column = spatial[-3:]
    image = next((each for each in operands if _is_image(each, column, pad)), None)
    if image is None:
        return None
    # 2. A tile of accumulators in registers; threads share channels (depthwise) or rows.
    epilogue = take_epilogue(sch, conv, blocks[1:], target)
    batch = [it.loop for it in spatial[:-3]]
    axes = channel, row, column
    if channel.var in variables(image.indices):
        tiles = _tile_depthwise(sch, axes, batch, sums, target, knobs)
    else:
        tiles = _tile_dense(sch, conv.rv, axes, batch, sums, target, knobs)
    # 3. The epilogue on the way to memory, the padding for one tile at a time.
    sch.reverse_compute_at(epilogue, tiles.inner)
    lanes = vector_extent(column.extent, target.lanes)
    for loop in copy_tile(sch, epilogue, tiles.inner, lanes):
        # The accumulators stay in registers only if every access has a constant index.
        sch.unroll(loop)
    for loop in tiles.unrolled:
        sch.unroll(loop)
    unroll_init(sch, sch.decompose_reduction(conv.rv, tiles.sum))
    if pad:  # decomposing it replaces the loops below `shared`
        place_padding(sch, pad.rv, tiles.shared, target.lanes)
    return add_in_single(sch, tiles.chunks) if tiles.chunks else sch


def _is_image(operand: TensorLoad, column: Iter, pad: ComputeBlock | None) -> bool:
    """Whether an operand is what a window moves over: what was padded, or read between pixels."""
    place = operand.indices[-1]
    if column.var not in variables(place):
        return False
    return operand.source.same_as(pad.output) if pad else not isinstance(place, tirx.Var)


class Tiles(NamedTuple):
    """The loops of a tiled convolution.

    Attributes:
        shared: Holds the padding.
        inner: Holds the epilogue.
        sum: The outermost loop of the sum.
        unrolled: Loops to unroll.
        chunks: The sum, where it was divided.
    """

    shared: LoopRV
    inner: LoopRV
    sum: LoopRV
    unrolled: list[LoopRV]
    chunks: Chunks | None = None


def _tile_dense(
    sch: s_tir.Schedule,
    rv: SBlockRV,
    axes: tuple[Iter, Iter, Iter],
    batch: list[LoopRV],
    sums: list[Iter],
    target: Target,
    knobs: Knobs,
) -> Tiles:
    """Tile a dense convolution."""
    channel, row, column = axes
    height, vectors, lanes = choose_tile(
        box_heights([channel.extent]), column.extent, target, knobs
    )
    limit = max(1, min(4, row.extent // (4 * target.threads)))
    rows = knobs.choose(
        "lines",
        [d for d in divisors(row.extent) if d <= 16],
        next(d for d in divisors(row.extent) if d <= limit),
    )
    row_outer, row_inner = sch.split(row.loop, [None, rows])
    channel_outer, channel_inner = sch.split(channel.loop, [None, height])
    column_outer, vector, lane = sch.split(column.loop, [None, vectors, lanes])
    outer = [*batch, row_outer, channel_outer, row_inner, column_outer]
    loops = [it.loop for it in sums]
    sch.reorder(*outer, *loops, channel_inner, vector, lane)
    chunks = sum_in_chunks(sch, rv, loops, [*outer, channel_inner, vector, lane])
    if chunks:
        *outer, channel_inner, vector, lane = chunks.kept
        loops = [chunks.loop]
    shared = fuse_loops(sch, outer[: len(batch) + 1])
    sch.parallel(shared)
    if lanes > 1:
        sch.vectorize(lane)
    window = [] if chunks else [it.loop for it in sums if it.extent <= 3]
    return Tiles(shared, outer[-1], loops[0], [*window[-1:], channel_inner, vector], chunks)


def _tile_depthwise(
    sch: s_tir.Schedule,
    axes: tuple[Iter, Iter, Iter],
    batch: list[LoopRV],
    sums: list[Iter],
    target: Target,
    knobs: Knobs,
) -> Tiles:
    """Tile a depthwise convolution; a few rows at once share the loads of the rows between."""
    channel, row, column = axes
    # Half of the second-level cache holds the padded rows of one channel.
    limit = max(4, target.l2_kib * 1024 // 2 // (4 * column.extent))
    heights = list(divisors(row.extent))
    options = [d for d in heights if d > 1]  # the border of a single row cannot be told apart
    rows = knobs.choose("lines", options, next(d for d in heights if d <= limit), seen=False)
    unrolled = strip_rows(rows, knobs)
    row_outer, row_middle, row_inner = sch.split(row.loop, [None, rows // unrolled, unrolled])
    lanes = vector_extent(column.extent, target.lanes)
    column_outer, lane = sch.split(column.loop, [None, lanes if lanes > 1 else column.extent])
    order = [*batch, channel.loop, row_outer, row_middle, column_outer]
    sch.reorder(*order, *[it.loop for it in sums], row_inner, lane)
    shared = fuse_loops(sch, [*batch, channel.loop, row_outer])
    sch.parallel(shared)
    if lanes > 1:
        sch.vectorize(lane)
    window = [it.loop for it in sums if it.extent <= 3]
    return Tiles(shared, column_outer, sums[0].loop, [*window, row_inner])
