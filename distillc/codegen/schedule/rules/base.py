"""What the schedule rules share: block analysis, inlining, tile sizes.

A rule is a function `(PrimFunc, Target, Knobs) -> s_tir.Schedule | None`; None means "not mine". It
gets the function in the form that `distillc.codegen.schedule.apply_rules` prepares: simplified,
elementwise chains inlined, image axes merged, the function's name "main". What could be chosen
otherwise (the size of a tile, a chunk) it asks of the knobs, with its own choice as the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import Call, TensorLoad
from tvm.s_tir.schedule import LoopRV, SBlockRV

from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target

Rule = Callable[[tirx.PrimFunc, Target, Knobs], s_tir.Schedule | None]

_realize = tvm_ffi.get_global_func("s_tir.schedule.GetSBlockRealize")

# Fewer scalar operations than this do not repay waking a second thread (about 5 us).
PARALLEL_MIN = 32768


@dataclass(frozen=True)
class Iter:
    """One iteration variable of a block, and the loop bound to it (None: a unit iteration)."""

    var: tirx.Var
    extent: int
    reduction: bool
    loop: LoopRV | None


@dataclass(frozen=True)
class ComputeBlock:
    """A computing block of a schedule, as it was when it was looked at.

    `iters` stand in the block's order; `nest` holds those bound to a loop, the outermost first.
    """

    rv: SBlockRV
    stmt: s_tir.SBlock
    iters: tuple[Iter, ...]
    nest: tuple[Iter, ...]

    @property
    def reduction(self) -> bool:
        return any(it.reduction for it in self.iters)

    @property
    def spatial_size(self) -> int:
        return prod(it.extent for it in self.iters if not it.reduction)

    @property
    def size(self) -> int:
        return prod(it.extent for it in self.iters)

    @property
    def output(self) -> tirx.Var:
        return self.stmt.body.buffer


def find_blocks(sch: s_tir.Schedule) -> list[ComputeBlock]:
    """Return the blocks under the root in program order; a nested block has its own loops too."""
    return [describe(sch, rv) for rv in sch.get_child_blocks(sch.get_sblock("root"))]


def describe(sch: s_tir.Schedule, rv: SBlockRV) -> ComputeBlock:
    """Describe one block: its iteration variables and their loops."""
    stmt = sch.get(rv)
    loops = {sch.get(loop).loop_var: loop for loop in sch.get_loops(rv)}
    values = _realize(sch, rv).iter_values
    iters = [
        Iter(
            iter_var.var,
            int(iter_var.dom.extent),
            iter_var.iter_type == tirx.IterVar.CommReduce,
            loops.get(value) if isinstance(value, tirx.Var) else None,
        )
        for iter_var, value in zip(stmt.iter_vars, values, strict=True)
    ]
    depth = {var: number for number, var in enumerate(loops)}
    bound = [
        (depth[value], it) for it, value in zip(iters, values, strict=True) if it.loop is not None
    ]
    nest = tuple(it for _, it in sorted(bound, key=lambda pair: pair[0]))
    return ComputeBlock(rv, stmt, tuple(iters), nest)


def loads(expr: object) -> list[TensorLoad]:
    """Return every buffer load inside an expression or statement."""
    found: list[TensorLoad] = []
    tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
    return found


def contains(expr: object, *kinds: type) -> bool:
    """Whether an expression holds a node of one of the kinds."""
    found: list[object] = []
    tvm_ffi.structural_walk(expr, [(kind, found.append) for kind in kinds])
    return bool(found)


def variables(expr: object) -> set[tirx.Var]:
    """Return the variables that an expression uses."""
    found: set[tirx.Var] = set()
    tvm_ffi.structural_walk(expr, (tirx.Var, found.add))
    return found


def simplify(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Simplify index expressions and conditions with the ranges of all loops known."""
    mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    return s_tir.transform.StmtSimplify()(mod)["main"]


def drop_unit_loops(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Fuse loops of one step that stand between others, so that those can be fused in turn."""
    sch = s_tir.Schedule(func)
    for rv in sch.get_child_blocks(sch.get_sblock("root")):
        while pair := _around_unit_loop(sch, rv):
            sch.fuse(*pair)
    return sch.mod["main"]


def _around_unit_loop(sch: s_tir.Schedule, rv: SBlockRV) -> tuple[LoopRV, LoopRV] | None:
    loops = sch.get_loops(rv)
    longer = [index for index, loop in enumerate(loops) if int(sch.get(loop).extent) > 1]
    for first, second in pairwise(longer):
        if second > first + 1:
            return loops[first], loops[first + 1]
    return None


def is_padding(block: ComputeBlock) -> bool:
    """Whether a block copies one buffer into a larger one with a constant border."""
    value = block.stmt.body.value
    return (
        not block.reduction
        and isinstance(value, Call)
        and value.op.name == "prim.if_then_else"
        and isinstance(value.args[1], TensorLoad)
        and isinstance(value.args[2], tirx.FloatImm)
    )


def inline_elementwise(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Inline elementwise blocks into their consumers where that repeats no costly work."""
    sch = s_tir.Schedule(func)
    for rv in list(sch.get_child_blocks(sch.get_sblock("root"))):
        block = describe(sch, rv)
        consumers = [describe(sch, consumer) for consumer in sch.get_consumers(rv)]
        if not consumers or block.reduction:
            continue
        value = block.stmt.body.value
        reused = max(consumer.size for consumer in consumers) > block.size or len(consumers) > 1
        if is_padding(block) and any(consumer.reduction for consumer in consumers):
            continue
        if reused and contains(value, Call, tirx.Div):
            continue
        if not isinstance(value, TensorLoad) and any(
            each.reduction and each.size > block.size for each in consumers
        ):
            continue  # a product should find its operand in memory
        try:
            sch.compute_inline(rv)
        except s_tir.ScheduleError:
            continue
    return sch.mod["main"]


def vector_extent(extent: int, lanes: int) -> int:
    """Return the width of the vectors that divide an axis and need the fewest register operations.

    A width that is not a power of two costs one operation for each bit set. Returns 1 where nothing
    from a quarter register up divides the axis; such a loop stays whole, and LLVM's own vectoriser
    gives it a vector body and a scalar tail.
    """
    widths = [w for w in range(lanes, max(1, lanes // 4 - 1), -1) if extent % w == 0]
    return min(widths, key=lambda w: w.bit_count() / w, default=1)


def vectorize_last(sch: s_tir.Schedule, loop: LoopRV, lanes: int) -> LoopRV:
    """Vectorise the inner part of a loop; return the loop around the vectors."""
    extent = int(sch.get(loop).extent)
    width = vector_extent(extent, lanes)
    if width == 1:
        return loop
    outer, inner = sch.split(loop, [None, width])
    sch.vectorize(inner)
    return outer


def divisors(value: int) -> Iterator[int]:
    """Yield the divisors of a number, the largest first."""
    return (d for d in range(value, 0, -1) if value % d == 0)


def box_heights(extents: Sequence[int]) -> list[int]:
    """Return how many neighbouring rows of fused axes make a box, the most first.

    Some of the last axis; or all of it, for some of the axis before; and so on.
    """
    found, inner = {1}, 1
    for extent in reversed(extents):
        found |= {inner * each for each in divisors(extent)}
        inner *= extent
    return sorted(found, reverse=True)


def fuse_loops(sch: s_tir.Schedule, loops: Sequence[LoopRV]) -> LoopRV:
    """Fuse loops, or return the only one."""
    return loops[0] if len(loops) == 1 else sch.fuse(*loops)


def loops_below(sch: s_tir.Schedule, rv: SBlockRV, anchor: LoopRV) -> list[LoopRV]:
    """Return the loops of a block that stand inside the loop `anchor`."""
    loops = sch.get_loops(rv)
    depth = [sch.get(loop).loop_var for loop in loops].index(sch.get(anchor).loop_var)
    return list(loops[depth + 1 :])


def binding(sch: s_tir.Schedule, rv: SBlockRV, var: tirx.Var) -> tirx.Expr:
    """Return the expression of loop variables that a block's iteration variable is bound to."""
    pairs = zip(sch.get(rv).iter_vars, _realize(sch, rv).iter_values, strict=True)
    return next(value for iter_var, value in pairs if iter_var.var.same_as(var))


def product_operands(block: ComputeBlock) -> tuple[TensorLoad, TensorLoad] | None:
    """Return the two loads of a block `C[..] = C[..] + A[..] * B[..]`."""
    store = block.stmt.body
    if not block.reduction or not isinstance(store.value, tirx.Add):
        return None
    total, product = store.value.a, store.value.b
    if not isinstance(total, TensorLoad) or not total.source.same_as(store.buffer):
        return None
    if not isinstance(product, tirx.Mul):
        return None
    first, second = product.a, product.b
    if not isinstance(first, TensorLoad) or not isinstance(second, TensorLoad):
        return None
    return first, second


def copy_tile(sch: s_tir.Schedule, rv: SBlockRV, anchor: LoopRV, lanes: int) -> list[LoopRV]:
    """Vectorise the innermost loop of a block that moves a tile; return the other own loops."""
    own = loops_below(sch, rv, anchor)
    if lanes > 1:
        own[-1], inner = sch.split(own[-1], [None, lanes])
        sch.vectorize(inner)
    return own


def unroll_init(sch: s_tir.Schedule, rv: SBlockRV) -> None:
    """Unroll the loops that `decompose_reduction` made for the initial values."""
    for loop in sch.get_loops(rv):
        stmt = sch.get(loop)
        if stmt.loop_var.name.endswith("_init") and stmt.kind == tirx.ForKind.SERIAL:
            sch.unroll(loop)


def schedule_block(sch: s_tir.Schedule, block: ComputeBlock, target: Target) -> None:
    """Schedule a block by itself: outer loops parallel, the last spatial axis in vectors."""
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
        sch.parallel(fuse_loops(sch, outer or [tile]))
    if sums:
        sch.decompose_reduction(block.rv, sums[0])


def take_epilogue(
    sch: s_tir.Schedule, block: ComputeBlock, after: Sequence[ComputeBlock], target: Target
) -> SBlockRV:
    """Give a sum accumulators; return the block that stores them, with what stands after the sum.

    A block after it that has more elements, a border, or that divides the axes of the sum anew, is
    scheduled by itself.
    """
    if after and after[0].size == block.spatial_size and _reads_by_axes(after[0], block.output):
        sch.set_scope(block.rv, 0, "local")
        return after[0].rv
    for each in after:
        schedule_block(sch, each, target)
    return sch.cache_write(block.rv, 0, "local")


def _reads_by_axes(block: ComputeBlock, source: tirx.Var) -> bool:
    """Whether a block reads `source` at its own axes: a tile of one is a tile of the other."""
    return all(
        isinstance(index, tirx.Var | tirx.IntImm)
        for load in loads(block.stmt.body.value)
        if load.source.same_as(source)
        for index in load.indices
    )
