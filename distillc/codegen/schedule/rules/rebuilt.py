"""Kernels that a builder writes: scans, attention, convolutions, built anew as their records say.

Their loops are written by hand, so there is nothing to schedule but what they ask of the knobs.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import s_tir, tirx

from distillc.codegen.kernels.attention import rebuild_attention
from distillc.codegen.kernels.axial_scan import rebuild_axial_scan
from distillc.codegen.kernels.builder import built_from
from distillc.codegen.kernels.selective_scan import rebuild_selective_scan
from distillc.codegen.kernels.winograd import rebuild_winograd
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target

Rebuild = Callable[[tuple[int, ...], Target, Knobs], tirx.PrimFunc]


def schedule_selective_scan(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Take a selective scan."""
    return _rebuilt("selective_scan", rebuild_selective_scan, func, target, knobs)


def schedule_axial_scan(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Take an axial scan."""
    return _rebuilt("axial_scan", rebuild_axial_scan, func, target, knobs)


def schedule_attention(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Take the attention of windows."""
    return _rebuilt("attention", rebuild_attention, func, target, knobs)


def schedule_winograd(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
    """Take a convolution of Winograd's form."""
    return _rebuilt("winograd", rebuild_winograd, func, target, knobs)


def _rebuilt(
    name: str, rebuild: Rebuild, func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    built = built_from(func)
    if built is None or built[0] != name:
        return None
    return s_tir.Schedule(rebuild(built[1], target, knobs))
