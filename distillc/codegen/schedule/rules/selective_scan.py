"""The selective scan: its kernel, built anew as its record says.

Its loops are written by hand, so there is nothing to schedule but the channels of a tile.
"""

from __future__ import annotations

from tvm import s_tir, tirx

from distillc.codegen.kernels.selective_scan import rebuild_scan, scan_shape
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target


def schedule_selective_scan(
    func: tirx.PrimFunc, target: Target, knobs: Knobs
) -> s_tir.Schedule | None:
    """Take a scan."""
    shape = scan_shape(func)
    return None if shape is None else s_tir.Schedule(rebuild_scan(shape, target, knobs))
