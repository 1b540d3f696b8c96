"""What the rewrites share: reading shapes and operators off Relax expressions."""

from __future__ import annotations

from typing import Any, TypeGuard

from tvm import relax
from tvm.ir import Op


def is_call(expr: object, *names: str) -> TypeGuard[Any]:
    """Whether an expression is a call of one of the operators."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name in names


def extents(expr: relax.Expr) -> tuple[int, ...]:
    """Return the static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape)
