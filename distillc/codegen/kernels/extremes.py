"""The larger and the smaller of numbers, as torch has it: NaN where one is, and infinities.

LLVM's code for TVM's own takes the second operand where a comparison fails, as each with NaN does.
"""

from __future__ import annotations

import math

import torch
import tvm_ffi
from tvm import tirx
from tvm.ir import Expr

_FLOATS = {"float16", "float32", "float64"}


def keep_nan(node: tirx.Max | tirx.Min) -> Expr:
    """Return an extreme of floats that is NaN where an operand is; of vectors it stays as it is.

    Beside a constant that is one instruction still: what fails a comparison with it is kept.
    """
    a, b = node.a, node.b
    if str(node.ty.dtype) not in _FLOATS:
        return node
    if isinstance(a, tirx.FloatImm):
        a, b = b, a
    beyond = (lambda x, y: x > y) if isinstance(node, tirx.Max) else (lambda x, y: x < y)
    if isinstance(b, tirx.FloatImm):
        return tirx.Select(beyond(b, a), b, a)
    return tirx.Select(tirx.any(beyond(a, b), tirx.isnan(a)), a, b)


def differ(node: tirx.NE) -> Expr:
    """Return whether floats differ, NaN from all; LLVM's code for TVM's own says it does not."""
    given = [node.a, node.b]
    if str(node.a.ty.dtype) not in _FLOATS:
        return node
    return tirx.any(node, *(tirx.isnan(x) for x in given if not isinstance(x, tirx.FloatImm)))


def begin_at_infinity(body: tirx.Stmt) -> tirx.Stmt:
    """Return statements whose running extremes begin at infinity: TVM's do at the largest number.

    Of rows that are infinite, the extreme was finite.
    """
    running = set()

    def note(store: tirx.BufferStore) -> None:
        if isinstance(store.value, tirx.Max | tirx.Min):
            running.add(store.buffer)

    def begin(store: tirx.BufferStore) -> tirx.BufferStore:
        value, dtype = store.value, str(store.buffer.dtype)
        if not isinstance(value, tirx.FloatImm) or store.buffer not in running:
            return store
        if abs(value.value) != torch.finfo(getattr(torch, dtype)).max:
            return store
        first = tirx.const(math.copysign(math.inf, value.value), dtype)
        return tirx.BufferStore(store.buffer, first, store.indices)

    tvm_ffi.structural_walk(body, (tirx.BufferStore, note))
    return tvm_ffi.structural_map(body, [(tirx.BufferStore, begin)]) if running else body
