"""Kernels on float16: what a rule is told of the target."""

from __future__ import annotations

import functools
from dataclasses import replace

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.rules.base import Rule
from distillc.targets.base import Target


def with_half_lanes(rule: Rule) -> Rule:
    """Tell a rule of twice the lanes where a kernel has float16 in it and the target computes so.

    What such a kernel computes in float32 then takes two registers a vector.
    """

    @functools.wraps(rule)
    def schedule(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
        half = target.half and any(str(buffer.ty.dtype) == "float16" for buffer in _buffers(func))
        return rule(func, replace(target, element_bits=16) if half else target, knobs)

    return schedule


def _buffers(func: tirx.PrimFunc) -> list[tirx.Var]:
    """Return the parameters of a kernel and what its blocks keep in between."""
    return [*func.params, *func.body.block.alloc_buffers]
