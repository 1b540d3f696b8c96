# mypy: disable-error-code="no-untyped-call"
"""Writes at computed places as a TIR kernel."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

# Operator pattern 8 is Relax's "never fuse this".
ATTRIBUTES = {"distillc.scheduled": "scatter", "op_pattern": 8, "tirx.noalias": True}


def scatter_kernel(size: int, writes: int, dtype: str) -> tirx.PrimFunc:
    """Return the kernel (x, places, values) -> y for static shapes.

    y is x (size,) with y[places[i]] = values[i], where places is (writes,) int64, counted from the
    end where negative, and values (writes,). Of two writes to one place the later counts. A place
    that is none, for which torch raises, is not written.
    """
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        T.func_name("scatter")
        T.func_attr(ATTRIBUTES)

        def operand(name: str, kind: str, extent: int) -> Any:
            return T.arg(name, T.buffer([tirx.IntImm("int64", extent)], kind))

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
                    T.buffer_store(y, values[i], [place])
    return builder.get()
