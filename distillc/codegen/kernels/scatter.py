# mypy: disable-error-code="no-untyped-call"
"""Writes at computed places as a TIR kernel."""

from __future__ import annotations

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels.builder import begin_kernel, operand

REDUCTIONS = {
    "sum": lambda there, value: there + value,
    "prod": lambda there, value: there * value,
    "amax": tirx.max,
    "amin": tirx.min,
}
"""How several values at one place are joined, by torch's names."""


def scatter_kernel(size: int, writes: int, dtype: str, reduce: str = "") -> tirx.PrimFunc:
    """Return the kernel (x, places, values) -> y for static shapes.

    y is x (size,) with y[places[i]] = values[i], where places is (writes,) int64, counted from the
    end where negative, and values (writes,). Of two writes to one place the later counts; with
    `reduce`, one of `REDUCTIONS`, values are joined with what is there, one after the other. A
    place that is none, for which torch raises, is not written.
    """
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("scatter")
        x, places = operand("x", dtype, size), operand("places", "int64", writes)
        values, y = operand("values", dtype, writes), operand("y", dtype, size)
        with T.sblock("scatter"):
            T.reads()
            T.writes()
            with T.parallel(size) as i:
                T.buffer_store(y, x[i], [i])
            with T.serial(writes) as i:
                place = T.Select(places[i] < 0, places[i] + size, places[i])
                with T.If(tirx.And(place >= 0, place < size)), T.Then():
                    there = y[place] if reduce else None
                    joined = REDUCTIONS[reduce](there, values[i]) if reduce else values[i]
                    T.buffer_store(y, joined, [place])
    return builder.get()
