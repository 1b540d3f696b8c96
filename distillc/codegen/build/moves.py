"""Kernels that only copy whole runs of memory: what they copy need not move."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import Call, Range, TensorLoad

from distillc.codegen.schedule.rules.flatten import int64, static_shape, substitute


class Move(NamedTuple):
    """A run of numbers that a kernel copies.

    Attributes:
        operand: The number of the parameter that is read.
        first: Where the run starts in it, numbers.
        place: Where it starts in the result.
        length: How many numbers.
    """

    operand: int
    first: int
    place: int
    length: int


def find_moves(func: tirx.PrimFunc) -> tuple[Move, ...]:
    """Return the runs that make up a kernel's result, in order; none where it does anything else.

    A slice of channels is one run, a concatenation of channels a run of each of its operands.
    """
    blocks: list[s_tir.SBlock] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, blocks.append))
    stores = [block for block in blocks if isinstance(block.body, tirx.BufferStore)]
    result = func.params[-1]
    if len(stores) != 1 or not stores[0].body.buffer.same_as(result):
        return ()
    (block,) = stores
    if block.init is not None or static_shape(result) is None:
        return ()
    extents = {each.var: (0, int(each.dom.extent)) for each in block.iter_vars}
    place = _flat(result, block.body.indices)
    moves = []
    for value, ranges in _cases(block.body.value, extents):
        move = _move(func, value, place, ranges)
        if move is None:
            return ()
        moves.append(move)
    moves.sort(key=lambda each: each.place)
    total = 0
    for each in moves:
        if each.place != total:
            return ()
        total += each.length
    return tuple(moves) if total == prod(static_shape(result) or ()) else ()


Ranges = dict[tirx.Var, tuple[int, int]]


def _cases(value: tirx.Expr, ranges: Ranges) -> list[tuple[tirx.Expr, Ranges]]:
    """Take `if from <= v` apart; return what is left for which ranges of the variables."""
    if not isinstance(value, Call) or value.op.name != "prim.if_then_else":
        return [(value, ranges)]
    condition, later, earlier = value.args
    if not isinstance(condition, tirx.LE) or not isinstance(condition.a, tirx.IntImm):
        return [(value, ranges)]
    border, var = int(condition.a), condition.b
    if var not in ranges or not ranges[var][0] < border < ranges[var][1]:
        return [(value, ranges)]
    begin, end = ranges[var]
    return [
        *_cases(earlier, {**ranges, var: (begin, border)}),
        *_cases(later, {**ranges, var: (border, end)}),
    ]


def _move(func: tirx.PrimFunc, value: tirx.Expr, place: tirx.Expr, ranges: Ranges) -> Move | None:
    if not isinstance(value, TensorLoad) or value.source.ty.dtype != func.params[-1].ty.dtype:
        return None
    numbers = [n for n, param in enumerate(func.params[:-1]) if param.same_as(value.source)]
    if not numbers or static_shape(value.source) is None:
        return None
    analyzer = sym.Analyzer()
    for var, (begin, end) in ranges.items():
        analyzer.bind(var, Range(int64(begin), int64(end)))
    source = _flat(value.source, value.indices)
    starts = []
    for flat in (source, place):
        start = substitute(flat, {var: int64(begin) for var, (begin, _) in ranges.items()})
        starts.append(analyzer.simplify(start))
    if not all(isinstance(start, tirx.IntImm) for start in starts):
        return None
    first, start = map(int, starts)
    if not analyzer.can_prove_equal(source - int64(first), place - int64(start)):
        return None
    # The result's places differ, so they are a run if the last is where a run would end.
    ends = {var: int64(end - 1) for var, (_, end) in ranges.items()}
    last = analyzer.simplify(substitute(place, ends))
    count = prod(end - begin for begin, end in ranges.values())
    if not isinstance(last, tirx.IntImm) or int(last) - start + 1 != count:
        return None
    return Move(numbers[0], first, start, count)


def _flat(buffer: tirx.Var, indices: list[tirx.Expr]) -> tirx.Expr:
    flat: tirx.Expr = int64(0)
    for index, extent in zip(indices, static_shape(buffer) or (), strict=True):
        flat = flat * int64(extent) + index
    return flat
