# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Reshape, transpose and slice constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Constant
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call, is_view, rewrite_functions

Array = np.ndarray[Any, Any]


@tvm.transform.module_pass(opt_level=0, name="FoldLayouts")
class FoldLayouts:
    """Do to weights at once what only moves their elements.

    1. A view of a constant is a constant, and so are its transposition and its slices.

    `FoldConstant` would compile and run a kernel for each: 65 ms, three quarters of the time that
    rewriting a Restormer takes.

    Given:   permute_dims(reshape(weight, (32, 2, 16)), (1, 0, 2))
    Result:  a constant of shape (2, 32, 16)
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        folded = rewrite_functions(mod, _Folder(mod))
        return relax.transform.CanonicalizeBindings()(folded)


@mutator
class _Folder(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        moved = _mover(call)
        if moved is None:
            return call
        source = call.args[0]
        if isinstance(source, relax.Var):
            source = self.lookup_binding(source)
        if not isinstance(source, Constant):
            return call
        value = source.value.numpy()
        return relax.const(np.ascontiguousarray(moved(value)), str(value.dtype))


def _mover(call: relax.Call) -> Callable[[Array], Array] | None:
    """Return what a call does to the array that is its operand, if it only moves elements."""
    if is_call(call, "relax.permute_dims"):
        axes = call.attrs.axes and [int(axis) for axis in call.attrs.axes]
        return lambda value: np.transpose(value, axes)
    if is_view(call):
        return lambda value: value.reshape(extents(call))
    if is_call(call, "relax.strided_slice"):
        axes, begin, end, *steps = [[int(each) for each in arg.fields] for arg in call.args[1:]]
        strides = steps[0] if steps else [1] * len(axes)
        if min(strides) > 0:  # backwards, Relax counts ends otherwise
            parts = [slice(None)] * len(extents(call))
            for axis, *part in zip(axes, begin, end, strides, strict=True):
                parts[axis] = slice(*part)
            return lambda value: value[tuple(parts)]
    return None
