# mypy: disable-error-code="no-untyped-call"
"""What the kernels that are written by a builder have in common."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T


def begin_kernel(name: str) -> None:
    """Name the kernel that is being built: it has its schedule, and no rule takes or fuses it."""
    T.func_name(name)
    # Operator pattern 8 is Relax's "never fuse this".
    T.func_attr({"distillc.scheduled": name, "op_pattern": 8, "tirx.noalias": True})


def operand(name: str, dtype: str, *shape: int) -> Any:
    """Return the next operand of the kernel that is being built, a buffer of this shape."""
    return T.arg(name, T.buffer([tirx.IntImm("int64", extent) for extent in shape], dtype))
