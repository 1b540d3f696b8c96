"""Give every PrimFunc of a lowered module a CPU schedule.

Rules are tried in order, the first that answers wins (the contract of TVM's dlight).
"""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx

from distillc.codegen.math import rewrite_math
from distillc.codegen.rules import RULES
from distillc.codegen.rules.base import inline_elementwise, simplify
from distillc.codegen.rules.flatten import merge_axes, restore
from distillc.errors import LoweringError
from distillc.targets.base import Target

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
        sch: s_tir.Schedule | None = rule(merged.func, target)
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
