# mypy: disable-error-code="no-untyped-call"
"""Sorting as a TIR kernel: a merge sort of places, rows in parallel, no runtime function."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.builder import begin_kernel, operand


def argsort_kernel(rows: int, count: int, dtype: str, descending: bool) -> tirx.PrimFunc:
    """Return the kernel x (rows, count) -> order (rows, count) int64 for static shapes.

    `order` holds the places of each row's elements from the smallest to the largest, or the other
    way round; equal elements keep their order, as with `torch.sort(stable=True)`. NaN is the
    largest.

    Runs of 1, 2, 4, ... places are merged in turn, from one half of a buffer to the other. A merge
    takes its next place without a branch: which run it is from cannot be predicted.
    """
    passes = (count - 1).bit_length()
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("argsort")
        x, order = operand("x", dtype, rows, count), operand("order", "int64", rows, count)
        with T.parallel(rows) as row, T.sblock("argsort"):
            T.reads()
            T.writes()
            # One element more: the place after the last run is read, and not used.
            places = T.sblock_alloc_buffer((2 * count + 1,), "int32", scope="global")
            state = T.sblock_alloc_buffer((3,), "int32", scope="global")
            left, right, taken = state[0], state[1], state[2]
            with T.serial(2 * count + 1) as i:
                T.buffer_store(places, T.Select(i < count, i, 0), [i])
            with T.serial(passes) as step:
                width = T.shift_left(T.int32(1), step)
                source = step % 2 * count
                with T.serial((count + 2 * width - 1) // (2 * width)) as pair:
                    begin = pair * 2 * width
                    middle = T.min(begin + width, count)
                    end = T.min(middle + width, count)
                    T.buffer_store(state, begin, [0])
                    T.buffer_store(state, middle, [1])
                    with T.serial(end - begin) as k:
                        a, b = (x[row, places[source + each]] for each in (left, right))
                        before = _is_less(a, b) if descending else _is_less(b, a)
                        behind = tirx.Or(left >= middle, tirx.And(right < end, before))
                        T.buffer_store(state, T.cast(behind, "int32"), [2])
                        head = T.Select(taken == 1, right, left)
                        T.buffer_store(places, places[source + head], [count - source + begin + k])
                        T.buffer_store(state, left + 1 - taken, [0])
                        T.buffer_store(state, right + taken, [1])
            with T.serial(count) as i:
                T.buffer_store(order, T.cast(places[passes % 2 * count + i], "int64"), [row, i])
    return builder.get()


def _is_less(a: Expr, b: Expr) -> Expr:
    """Whether a number is smaller than another; NaN is larger than all."""
    if not str(a.ty.dtype).startswith("float"):
        return a < b
    return tirx.Or(a < b, tirx.And(tirx.isnan(b), tirx.Not(tirx.isnan(a))))
