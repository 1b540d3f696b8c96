# mypy: disable-error-code="no-untyped-call"
"""What the kernels that are written by a builder have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

SCHEDULED = "distillc.scheduled"
"""Attribute of a function that has its schedule: the name of the rule or of the kernel."""
_SIZES = "distillc.sizes"


def begin_kernel(name: str) -> None:
    """Name the kernel that is being built: it has its schedule, and no rule takes or fuses it."""
    T.func_name(name)
    # Operator pattern 8 is Relax's "never fuse this".
    T.func_attr({SCHEDULED: name, "op_pattern": 8, "tirx.noalias": True})


def operand(name: str, dtype: str, *shape: int) -> Any:
    """Return the next operand of the kernel that is being built, a buffer of this shape."""
    return T.arg(name, T.buffer([tirx.IntImm("int64", extent) for extent in shape], dtype))


def with_sizes(kernel: tirx.PrimFunc, sizes: Sequence[int]) -> tirx.PrimFunc:
    """Note in a kernel what it was built from, so that it can be built anew with other knobs."""
    return kernel.with_attr(_SIZES, tuple(sizes))


def built_from(func: tirx.PrimFunc) -> tuple[str, tuple[int, ...]] | None:
    """Return the name and the sizes of a kernel that can be built anew, None for any other."""
    attrs = func.attrs or {}
    if _SIZES not in attrs:
        return None
    return str(attrs[SCHEDULED]), tuple(map(int, attrs[_SIZES]))
