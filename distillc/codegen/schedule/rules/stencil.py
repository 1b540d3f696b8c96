"""Depthwise convolutions: what the rules that hold one share.

Given:   P = pad(X); Y[c, y, x] += P[c, y + ry, x + rx] * W[c, ry, rx]
Result:  P of one channel and tile of rows: zeros, then rows copied in vectors
         for each few rows, each vector of x: acc[rows, x] in registers; for ry, rx: acc += W * P
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.s_tir.schedule import LoopRV, SBlockRV

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import (
    ComputeBlock,
    binding,
    copy_tile,
    describe,
    divisors,
    is_padding,
    loops_below,
    product_operands,
    unroll_init,
    variables,
    vector_extent,
    vectorize_last,
)
from distillc.targets.base import Target


def is_depthwise(blocks: list[ComputeBlock]) -> bool:
    """Whether a kernel is padding and a depthwise convolution, with at most an epilogue."""
    if not 2 <= len(blocks) <= 3 or not is_padding(blocks[0]):
        return False
    operands = product_operands(blocks[1])
    if operands is None or (len(blocks) == 3 and blocks[2].reduction):
        return False
    image = next((op for op in operands if op.source.same_as(blocks[0].output)), None)
    return (
        image is not None
        and variables(blocks[1].stmt.body.indices[1]) <= variables(image.indices[1]) != set()
    )


def place_stencils(
    sch: s_tir.Schedule,
    before: list[ComputeBlock],
    pack: SBlockRV,
    tile: LoopRV,
    target: Target,
    knobs: Knobs,
) -> None:
    """Compute the blocks that lead to `pack` channel by channel, for one tile of rows.

    Args:
        sch: The schedule; `pack` stands at the loop `tile`.
        before: Padding, depthwise convolutions and elementwise work, `pack` the last of them.
        pack: Makes a tile of (channels, rows, columns).
        tile: The loop of tiles.
        target: What it is compiled for.
        knobs: Answers `strip`.
    """
    block = describe(sch, pack)
    channel = next(
        it.loop for it in block.iters if it.loop and it.var in variables(block.stmt.body.indices[1])
    )
    stencils = [each for each in before if not is_padding(each) and each.reduction]
    for each in reversed(before[:-1]):
        if not is_padding(each):
            sch.compute_at(each.rv, channel)
    if not block.reduction:
        vectorize_last(sch, loops_below(sch, pack, channel)[-1], target.lanes)
    for each in stencils:
        tile_stencil(sch, each.rv, channel, target, knobs)
    for each in before:
        if is_padding(each):
            place_padding(sch, each.rv, channel, target.lanes)
        elif not each.reduction and not each.rv.same_as(pack):
            vectorize_last(sch, loops_below(sch, each.rv, channel)[-1], target.lanes)


def _is_axis(index: tirx.Expr) -> bool:
    return isinstance(index, tirx.Var)


def tile_stencil(
    sch: s_tir.Schedule, rv: SBlockRV, anchor: LoopRV, target: Target, knobs: Knobs
) -> None:
    """Schedule a depthwise convolution below a loop: a few rows share what they load."""
    block = describe(sch, rv)
    own = {sch.get(loop).loop_var: loop for loop in loops_below(sch, rv, anchor)}

    def loops(axis: tirx.Var) -> list[LoopRV]:
        return [own[var] for var in variables(binding(sch, rv, axis)) & set(own)]

    *outer, rows, columns = [loops(index) for index in block.stmt.body.indices if _is_axis(index)]
    window = [loop for it in block.iters if it.reduction for loop in loops(it.var)]
    column = columns[0]
    lanes = vector_extent(int(sch.get(column).extent), target.lanes)
    result = sch.cache_write(rv, 0, "local")
    column_outer, lane = sch.split(column, [None, lanes])
    row_outer, row_inner = [], []
    for row in rows:  # a tile of one row has no loop
        few = strip_rows(int(sch.get(row).extent), knobs)
        row_outer, row_inner = [[each] for each in sch.split(row, [None, few])]
    order = [loop for group in (*outer, row_outer) for loop in group]
    sch.reorder(*order, column_outer, *window, *row_inner, lane)
    if lanes > 1:
        sch.vectorize(lane)
    for loop in (*window, *row_inner):
        sch.unroll(loop)
    sch.reverse_compute_at(result, column_outer)
    for loop in copy_tile(sch, result, column_outer, lanes):
        sch.unroll(loop)
    unroll_init(sch, sch.decompose_reduction(rv, window[0]))


def strip_rows(rows: int, knobs: Knobs) -> int:
    """Return how many rows are computed at once, and share the loads of the rows between."""
    options = [d for d in divisors(rows) if d <= 8]
    return knobs.choose("strip", options, next(d for d in options if d <= 4))


def place_padding(sch: s_tir.Schedule, pad: SBlockRV, loop: LoopRV, lanes: int) -> None:
    """Pad tile by tile: fill the tile with zeros, then copy the inside without conditions."""
    sch.compute_at(pad, loop)
    sch.decompose_padding(pad, loops_below(sch, pad, loop)[0])
    vectorize_last(sch, sch.get_loops(pad)[-1], lanes)
