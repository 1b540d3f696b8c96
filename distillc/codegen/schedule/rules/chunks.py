"""Long sums in float16: short chunks of them, added up in float32.

Given:   for k: acc += W * X                               (float16, acc in registers)
Result:  for each chunk of k:
           part = 0; for k of the chunk: part += W * X
           acc += part                                     (float32)

Rounding errors grow with the length of a sum and with its size; `part` stays short and small. The
two kinds of accumulators exceed the register file, but the second is used once a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Expr
from tvm.s_tir.schedule import LoopRV, SBlockRV

from distillc.codegen.schedule.rules.base import (
    binding,
    describe,
    divisors,
    loops_below,
    unroll_init,
    variables,
)

CHUNK = 256
"""Terms of the longest chunk."""
LEAST = 16
"""Terms of the shortest chunk that is worth it."""


def chunk_extent(extent: int, inner: int) -> int:
    """Return how far the outermost loop of a sum goes in a chunk; all of `extent` for one chunk.

    Args:
        extent: Of the outermost loop.
        inner: Terms that each of its iterations sums.
    """
    size = next((d for d in divisors(extent) if d * inner <= CHUNK), 0)
    return size if size * inner >= LEAST else extent


@dataclass(frozen=True)
class Chunks:
    """A sum that was divided.

    Attributes:
        total: Adds up the chunks.
        part: Sums a chunk.
        loop: Goes through the chunks.
        kept: The loops of `total` that were asked for.
    """

    total: SBlockRV
    part: SBlockRV
    loop: LoopRV
    kept: tuple[LoopRV, ...]


def sum_in_chunks(
    sch: s_tir.Schedule, rv: SBlockRV, sums: Sequence[LoopRV], kept: Sequence[LoopRV]
) -> Chunks | None:
    """Divide a float16 sum into chunks; `add_in_single` must follow at the end.

    Args:
        sch: The schedule.
        rv: A sum into a local buffer, with all loops its own.
        sums: Its reduction loops, one in the other.
        kept: Other loops of it, whose handles are lost and are given anew. The last two, the
            innermost, go through vectors and through lanes.

    Returns:
        None, and nothing has changed, for a sum that is not float16 or is one chunk.
    """

    def variable(loop: LoopRV) -> tirx.Var:
        return sch.get(loop).loop_var

    extent, *inner = (int(sch.get(loop).extent) for loop in sums)
    size = chunk_extent(extent, prod(inner))
    if size == extent or str(describe(sch, rv).output.ty.dtype) != "float16":
        return None
    vectors, lanes = (int(sch.get(loop).extent) for loop in kept[-2:])
    chunk, terms = sch.split(sums[0], [None, size])
    gone = {variable(loop) for loop in (terms, *sums[1:])}
    left = [var for var in map(variable, sch.get_loops(rv)) if var not in gone]
    wanted = [variable(loop) for loop in (chunk, *kept)]
    part = sch.rfactor(chunk, 0)
    sch.set_scope(part, 0, "local")
    loops = dict(zip(left, sch.get_loops(rv), strict=True))
    chunk, *again = (loops[var] for var in wanted)
    sch.compute_at(part, chunk)
    _tile_part(sch, part, chunk, vectors, lanes)
    return Chunks(rv, part, chunk, tuple(again))


def _tile_part(
    sch: s_tir.Schedule, part: SBlockRV, chunk: LoopRV, vectors: int, lanes: int
) -> None:
    """Order the sum of a chunk: terms, rows, vectors, lanes."""
    own = {sch.get(loop).loop_var: loop for loop in loops_below(sch, part, chunk)}
    block = describe(sch, part)

    def loops(axes: Sequence[tirx.Var]) -> list[LoopRV]:
        used = {var for axis in axes for var in variables(binding(sch, part, axis))}
        return [loop for var, loop in own.items() if var in used]

    terms = loops([it.var for it in block.iters if it.reduction])
    *others, last = [index for index in block.stmt.body.indices if isinstance(index, tirx.Var)]
    (columns,) = loops([last])
    rows = loops(others)
    _, vector, lane = sch.split(columns, [None, vectors, lanes])
    sch.reorder(*terms, *rows, vector, lane)
    if lanes > 1:
        sch.vectorize(lane)
    for loop in (*terms[2:], *rows, vector):  # of a window, the rows are walked
        sch.unroll(loop)


def add_in_single(sch: s_tir.Schedule, chunks: Chunks) -> s_tir.Schedule:
    """Return the schedule with the chunks added up in float32.

    This is the last step: to TVM, a sum whose initial value stands apart is not a reduction any
    more, and neither is one with casts.
    """
    terms = next(it.loop for it in describe(sch, chunks.part).nest if it.reduction)
    unroll_init(sch, sch.decompose_reduction(chunks.part, terms))
    sch.unsafe_set_dtype(chunks.total, 0, "float32")
    body = tvm_ffi.structural_map(sch.mod["main"].body, [(tirx.Cast, _widen)], order="post")
    return s_tir.Schedule(sch.mod["main"].with_body(body))


def _widen(cast: tirx.Cast) -> Expr:
    """Replace float32(float16(x) + y) by x + float32(y), and float32(float16(x)) by x."""
    if str(cast.ty.dtype) != "float32":
        return cast
    value, rest = cast.value, None
    if isinstance(value, tirx.Add):
        value, rest = value.a, tirx.Cast("float32", value.b)
    if not isinstance(value, tirx.Cast) or str(value.value.ty.dtype) != "float32":
        return cast
    return value.value if rest is None else value.value + rest
