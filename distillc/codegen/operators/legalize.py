# mypy: disable-error-code="no-untyped-call"
"""Operators whose form in TVM warns or fails; ours hold for all passes, folding constants too."""

from __future__ import annotations

import functools

import tvm
from tvm import relax, te, tirx, topi
from tvm.ir import GenericConst


def _take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Lower `take` to plain loads: TVM's own form does the same and warns at every one."""

    def take(data: te.Tensor, places: te.Tensor) -> te.Tensor:
        axis = int(call.attrs.axis) % len(data.shape)
        end = axis + len(places.shape)
        shape = (*data.shape[:axis], *places.shape, *data.shape[axis + 1 :])
        return te.compute(
            shape, lambda *i: data(*i[:axis], places(*i[axis:end]), *i[end:]), name="take"
        )

    if call.attrs.axis is None:
        return builder.call_te(topi.take, *call.args)
    return builder.call_te(take, *call.args, primfunc_name_hint="take")


def _full(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """Lower `full` and `full_like`: TVM's own form fails where the value is infinite."""
    shape, dtype = list(call.ty.shape), str(call.ty.dtype.dtype)

    def full(value: te.Tensor) -> te.Tensor:
        return te.compute(shape, lambda *i: value().astype(dtype), name="full")

    value = call.args[1]
    if isinstance(value, GenericConst):
        number = tirx.const(value.value.numpy().item(), dtype)
        return builder.call_te(topi.full, shape, dtype, number, primfunc_name_hint="full")
    return builder.call_te(full, value, primfunc_name_hint="full")


@functools.cache
def register() -> None:
    """Put these forms before TVM's own, which have level 10; once."""
    for name, lowered in {"take": _take, "full": _full, "full_like": _full}.items():
        tvm.ir.register_op_attr(f"relax.{name}", "FLegalize", lowered, level=11)
