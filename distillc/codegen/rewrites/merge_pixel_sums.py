# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Sum over height and width as over one axis."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call, rewrite_functions

_SUMS: dict[str, Callable[..., relax.Expr]] = {
    "relax.max": relax.op.max,
    "relax.mean": relax.op.mean,
    "relax.min": relax.op.min,
    "relax.sum": relax.op.sum,
}


@tvm.transform.module_pass(opt_level=0, name="MergePixelSums")
class MergePixelSums:
    """Let a sum over all pixels run along one axis, which is contiguous.

    1. A sum, mean or extreme over the last axes, two or more, is that of a view in which these are
       one axis. Rules for rows then know it.

    Given:   mean(x, (2, 3)) of x (1, C, H, W)
    Result:  mean(reshape(x, (1, C, H W)), 2)
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_functions(mod, _Merger(mod))


@mutator
class _Merger(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, *_SUMS) or call.attrs.axis is None:
            return call
        shape = extents(call.args[0])
        axes = sorted(int(axis) % len(shape) for axis in call.attrs.axis)
        first = axes[0] if axes else len(shape)
        if len(axes) < 2 or axes != list(range(first, len(shape))):
            return call
        rows = self.builder_.emit(
            relax.op.reshape(call.args[0], (*shape[:first], prod(shape[first:])))
        )
        merged = _SUMS[call.op.name](rows, [first], keepdims=False)
        if not call.attrs.keepdims:
            return merged
        return relax.op.reshape(self.builder_.emit(merged), extents(call))
