"""What the rewrites share: rewriting functions, reading shapes and operators off expressions."""

from __future__ import annotations

from math import prod
from typing import Any, TypeGuard

import tvm
from tvm import relax
from tvm.ir import Op
from tvm.relax.expr_functor import PyExprMutator

VIEWS = ("relax.reshape", "relax.broadcast_to", "relax.expand_dims", "relax.squeeze")


def rewrite_functions(mod: tvm.IRModule, visitor: PyExprMutator) -> tvm.IRModule:
    """Let a mutator rewrite every Relax function, and drop what nothing reads any more."""
    for name, func in mod.functions_items():
        if isinstance(func, relax.Function):
            visitor.builder_.update_func(name, visitor.visit_expr(func))
    return relax.transform.DeadCodeElimination()(visitor.builder_.get())


def is_call(expr: object, *names: str) -> TypeGuard[Any]:
    """Whether an expression is a call of one of the operators."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name in names


def readers_of(mod: tvm.IRModule) -> dict[relax.Var, list[relax.Expr]]:
    """Return what reads each variable: values that others are bound to, and functions' results."""
    found: dict[relax.Var, list[relax.Expr]] = {}
    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            values = [each.value for block in func.body.blocks for each in block.bindings]
            for value in [*values, func.body.body]:
                for used in relax.analysis.free_vars(value):
                    found.setdefault(used, []).append(value)
    return found


def extents(expr: relax.Expr) -> tuple[int, ...]:
    """Return the static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape)


def is_view(expr: object) -> TypeGuard[Any]:
    """Whether an expression is a reshape, or a broadcast that repeats nothing."""
    return is_call(expr, *VIEWS) and prod(extents(expr.args[0])) == prod(extents(expr))
