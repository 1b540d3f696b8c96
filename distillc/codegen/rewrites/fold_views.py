# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Collapse chains of reshapes and of broadcasts that repeat nothing."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_view, rewrite_functions


@tvm.transform.module_pass(opt_level=0, name="FoldViews")
class FoldViews:
    """Leave at most one reshape between two kernels.

    1. A reshape of a reshape is one reshape; so is a broadcast to as many elements.
    2. A reshape to the shape that the first of the chain began with is nothing.

    Given:   reshape(broadcast_to(reshape(x, (1, h, C, L)), (1, h, C, L)), (1, h C, H, W))
    Result:  x, when that was its shape
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        folded = rewrite_functions(mod, _Folder(mod))
        clean = relax.transform.CanonicalizeBindings()(folded)
        return relax.transform.DeadCodeElimination()(clean)


@mutator
class _Folder(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_view(call):
            return call
        source = self.source(call.args[0])
        if extents(source) == extents(call):  # rule 2
            return source
        return relax.op.reshape(source, extents(call))  # rule 1

    def source(self, expr: relax.Expr) -> relax.Expr:
        """Return what a chain of views begins with."""
        call = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        return self.source(call.args[0]) if is_view(call) else expr
