"""Give every PrimFunc of a lowered module a CPU schedule.

Rules are tried in order, the first that answers wins (the contract of TVM's dlight).
"""

from __future__ import annotations

import functools
import logging

import tvm
from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.math import rewrite_math
from distillc.codegen.rules import RULES
from distillc.codegen.rules.base import Rule, inline_elementwise, simplify
from distillc.codegen.rules.flatten import merge_axes, restore
from distillc.errors import LoweringError
from distillc.targets.base import Target

log = logging.getLogger(__name__)

# Set on a PrimFunc that arrives with a schedule of its own (the selective scan).
SCHEDULED = "distillc.scheduled"


def schedule_module(mod: tvm.IRModule, target: Target) -> tvm.IRModule:
    """Schedule all PrimFuncs of a module after FuseTIR.

    PrimFuncs with the attribute `distillc.scheduled` keep their loops; in all of them the
    transcendental functions become polynomials, so that no vector loop calls libm.

    Raises:
        LoweringError: No rule takes a PrimFunc.
    """
    updated = tvm.IRModule(mod.functions, attrs=mod.attrs, global_infos=mod.global_infos)
    for name, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc):
            updated[name] = schedule_func(func, target, name.name_hint)
    return updated


def schedule_func(func: tirx.PrimFunc, target: Target, name: str) -> tirx.PrimFunc:
    """Schedule one PrimFunc and rewrite its mathematics; see `schedule_module`."""
    if func.attrs is not None and SCHEDULED in func.attrs:
        return rewrite_math(func)
    merged = merge_axes(simplify(inline_elementwise(simplify(func))))
    for rule in RULES:
        sch = _try_rule(rule, merged.func, target, name)
        if sch is None:
            continue
        scheduled = restore(sch.mod["main"], merged.originals)
        done = tirx.PrimFunc(scheduled.params, scheduled.body, scheduled.ret_type, func.attrs)
        return rewrite_math(done).with_attr(SCHEDULED, rule.__name__)
    raise LoweringError(
        "no schedule rule takes this kernel",
        where=name,
        hint="please report the network; distillc.codegen.rules holds the rules",
    )


def _try_rule(rule: Rule, func: tirx.PrimFunc, target: Target, name: str) -> s_tir.Schedule | None:
    """Apply a rule; one that fails half-way has changed nothing, and the next may do."""
    try:
        return rule(func, target, Knobs())
    except (s_tir.ScheduleError, tvm.error.InternalError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["unknown"]
        reason = next((line for line in lines if "Error message" in line), lines[-1])
        _warn_once(
            f"{rule.__name__} could not schedule {name.rstrip('0123456789')}; a simpler schedule "
            f"takes over, which may be slower ({reason.removeprefix('Error message: ')[:200]})"
        )
        return None


@functools.cache
def _warn_once(message: str) -> None:
    """Warn; a conversion schedules equal kernels many times over."""
    log.warning(message)
