"""Give every PrimFunc of a lowered module a CPU schedule.

Rules are tried in order, the first that answers wins (the contract of TVM's dlight). Where a kernel
was tuned, its record answers the choices of the rule that it was tuned with.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm import s_tir, tirx

from distillc.codegen.kernels.builder import SCHEDULED, built_from
from distillc.codegen.kernels.polynomials import rewrite_math
from distillc.codegen.knobs import Knobs, ScheduleChoice
from distillc.codegen.schedule.records import Records, load_records, workload
from distillc.codegen.schedule.regions import uncovered_blocks
from distillc.codegen.schedule.rules import RULES, Entry
from distillc.codegen.schedule.rules.base import drop_unit_loops, inline_elementwise, simplify
from distillc.codegen.schedule.rules.flatten import Merged, merge_axes, restore
from distillc.errors import LoweringError
from distillc.targets.base import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A kernel before it is scheduled.

    Attributes:
        func: As it was lowered.
        merged: In the form that rules get.
        workload: What it computes; equal for equal kernels.
    """

    func: tirx.PrimFunc
    merged: Merged
    workload: str


@dataclass(frozen=True)
class Scheduled:
    """A scheduled kernel, the rule that took it, and what was asked and answered."""

    func: tirx.PrimFunc
    rule: str
    knobs: Knobs


Show = Callable[[str, Kernel, Scheduled], object]
"""Told a kernel's name, the kernel, and its schedule."""


def schedule_module(
    mod: tvm.IRModule,
    target: Target,
    records: Records | None = None,
    show: Show = lambda *_: None,
) -> tvm.IRModule:
    """Schedule all PrimFuncs of a module after FuseTIR.

    PrimFuncs with the attribute `distillc.scheduled` keep their loops, but what has sizes is built
    as its record says; in all of them the transcendental functions become polynomials, so that no
    vector loop calls libm.

    Args:
        mod: A lowered module.
        target: What it is compiled for.
        records: Tuned choices, by default those that come with the package or are the user's.

        show: Told each kernel that is scheduled, with its name.

    Raises:
        LoweringError: No rule takes a PrimFunc.
    """
    known = load_records(target) if records is None else records
    updated = tvm.IRModule(mod.functions, attrs=mod.attrs, global_infos=mod.global_infos)
    for name, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc):
            updated[name] = schedule_func(func, target, name.name_hint, known, show)
    return updated


def schedule_func(
    func: tirx.PrimFunc,
    target: Target,
    name: str,
    records: Records | None = None,
    show: Show = lambda *_: None,
) -> tirx.PrimFunc:
    """Schedule one PrimFunc and rewrite its mathematics; see `schedule_module`."""
    kernel = find_kernel(func)
    if kernel is None:
        return rewrite_math(func)
    record = (records or {}).get(kernel.workload)
    scheduled = schedule_kernel(kernel, target, name, record.choice if record else None)
    show(name, kernel, scheduled)
    return scheduled.func


def find_kernel(func: tirx.PrimFunc) -> Kernel | None:
    """Return what is to be scheduled, None for a function with loops of its own that stay."""
    attrs = func.attrs or {}
    if built_from(func):
        return Kernel(func, Merged(func, {}), workload(func))
    if SCHEDULED in attrs:
        return None
    merged = merge_axes(simplify(inline_elementwise(drop_unit_loops(simplify(func)))))
    return Kernel(func, merged, workload(merged.func))


def schedule_kernel(
    kernel: Kernel, target: Target, name: str, choice: ScheduleChoice | None = None
) -> Scheduled:
    """Schedule one kernel, its rule's choices as in `choice` where that is of the same rule.

    Raises:
        LoweringError: No rule takes it.
    """
    func, merged = kernel.func, kernel.merged

    if choice and choice.rule not in {entry.id for entry in RULES}:
        _warn_once(
            f"tuning records name a rule {choice.rule!r}, which this version does not have: the "
            "kernels get their defaults; tune them again, or delete these lines"
        )

    def answers(rule: str) -> Knobs:
        return Knobs(choice.knobs if choice and choice.rule == rule else None)

    for entry in RULES:
        knobs = answers(entry.id)
        sch = _try_rule(entry, merged.func, target, knobs, name)
        if sch is None:
            continue
        scheduled = restore(sch.mod["main"], merged.originals)
        done = tirx.PrimFunc(scheduled.params, scheduled.body, scheduled.ret_type, func.attrs)
        done = rewrite_math(done).with_attr(SCHEDULED, entry.id)
        return Scheduled(done, entry.id, knobs)
    raise LoweringError(
        "no schedule rule takes this kernel",
        where=name,
        hint="please report the network; distillc.codegen.schedule.rules holds the rules",
    )


def _try_rule(
    entry: Entry, func: tirx.PrimFunc, target: Target, knobs: Knobs, name: str
) -> s_tir.Schedule | None:
    """Apply a rule; one that fails half-way has changed nothing, and the next may do."""
    try:
        sch = entry.schedule(func, target, knobs)
        if sch is None:
            return None
        # The fallback computes all of a block before the next. TVM's regions are estimates, and a
        # slice with steps reads less than they say.
        if entry is not RULES[-1] and (blocks := uncovered_blocks(sch.mod)):
            raise s_tir.ScheduleError(f"not all that {', '.join(blocks)} would read is computed")
        return sch
    except (s_tir.ScheduleError, tvm.error.InternalError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["unknown"]
        reason = next((line for line in lines if "Error message" in line), lines[-1])
        _warn_once(
            f"{entry.id} could not schedule {name.rstrip('0123456789')}; a simpler schedule "
            f"takes over, which may be slower ({reason.removeprefix('Error message: ')[:200]})"
        )
        return None


@functools.cache
def _warn_once(message: str) -> None:
    """Warn; a conversion schedules equal kernels many times over."""
    log.warning(message)
