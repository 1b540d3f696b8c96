"""Tune the kernels of networks: whom to search, for how long, and what is recorded.

1. Kernels that compute the same are one; those that were searched over the same space are left out.
2. All others are priced with their defaults. The most expensive comes first; its share of the
   remaining cost is its share of the remaining time.
3. A kernel that is finished is recorded at once, so that a killed run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx

from distillc.codegen.rewrites.walk import is_call
from distillc.codegen.schedule.apply_rules import find_kernel, schedule_kernel
from distillc.codegen.schedule.records import (
    TuningRecord,
    append_record,
    load_records,
    read_records,
)
from distillc.codegen.schedule.rules.flatten import static_shape
from distillc.codegen.tuning.price_kernels import Group, KernelPricer, Operands
from distillc.codegen.tuning.search_schedules import ROUNDS, KernelTask, search
from distillc.targets.base import Target

PRICED = 16
"""Kernels that are built together to be priced."""
LEAST_S = 2.0
"""A share of the time that is shorter finishes no race."""


@dataclass(frozen=True)
class TuningResult:
    """What came of tuning.

    Attributes:
        records: New records, the most expensive kernel first.
        known: Kernels that had been searched before.
        left: Kernels that no time was left for.
        before: Cost of one inference of each network in the kernels that were not known, with their
            defaults.
        after: The same with the new records.
        unit: `ms`, or `cycles` of the static model.
        path: The file of records.
    """

    records: tuple[TuningRecord, ...]
    known: int
    left: int
    before: float
    after: float
    unit: str
    path: Path

    def summary(self) -> dict[str, Any]:
        """Return the figures, JSON-serialisable, without the records themselves."""
        figures = {name: getattr(self, name) for name in ("known", "left", "before", "after")}
        return {"searched": len(self.records), **figures, "unit": self.unit}


def tune_modules(
    mods: Iterable[tvm.IRModule],
    target: Target,
    pricer: KernelPricer,
    path: Path,
    seconds: float,
    report: Callable[[int, str], object] = lambda spent, detail: None,
) -> TuningResult:
    """Search the kernels of lowered modules and record the best choices.

    Args:
        mods: Lowered modules, as `distillc.codegen.stages.lower` returns them.
        target: What they are compiled for.
        pricer: Prices candidates.
        path: File that records are added to, and that says what was searched before.
        seconds: Time to spend.
        report: Called with the seconds spent and a few words.

    Raises:
        LoweringError: A kernel cannot be scheduled or built with its default.
        DeviceError: It cannot be run.
        StorageError: `path` cannot be written.
    """
    start = time.monotonic()
    found = find_tasks(mods, target)
    own = read_records(path, target)
    tasks = []
    for task in found:
        record = own.get(task.kernel.workload)
        if record is None or (record.space, record.unit) != (task.space, pricer.unit):
            tasks.append(task)

    defaults: dict[str, float] = {}
    for first in range(0, len(tasks), PRICED):
        some = tasks[first : first + PRICED]
        report(int(time.monotonic() - start), f"pricing {len(tasks)} kernels")
        groups = [Group((task.default.func,), task.operands) for task in some]
        for task, costs in zip(some, pricer(groups, ROUNDS[0]), strict=True):
            defaults[task.kernel.workload] = costs.values[0]
    bill = {task.kernel.workload: task.calls * defaults[task.kernel.workload] for task in tasks}
    tasks.sort(key=lambda task: -bill[task.kernel.workload])

    tried = load_records(target, path)
    records: list[TuningRecord] = []
    for number, task in enumerate(tasks):
        key, now = task.kernel.workload, time.monotonic()
        rest = sum(bill[each.kernel.workload] for each in tasks[number:])
        share = (start + seconds - now) * bill[key] / rest
        if share < LEAST_S:
            break
        report(int(now - start), f"kernel {number + 1} of {len(tasks)}, {task.name}")
        known = tried[key].choice if key in tried else None
        best, before, after = search(task, target, pricer, defaults[key], now + share, known)
        records.append(
            TuningRecord(
                key,
                " ".join("x".join(map(str, shape)) for shape in task.operands.shapes),
                target.cpu,
                best.rule,
                best.knobs.values,
                task.space,
                round(before, 4),
                round(after, 4),
                pricer.unit,
            )
        )
        append_record(path, records[-1])
    ratio = {each.workload: each.cost / each.default for each in records}
    return TuningResult(
        tuple(records),
        len(found) - len(tasks),
        len(tasks) - len(records),
        sum(bill.values()),
        sum(value * ratio.get(key, 1.0) for key, value in bill.items()),
        pricer.unit,
        path,
    )


def find_tasks(mods: Iterable[tvm.IRModule], target: Target) -> list[KernelTask]:
    """Return the float32 kernels of lowered modules that leave a choice, each workload once."""
    found: dict[str, KernelTask] = {}
    for mod in mods:
        for name, calls in kernel_calls(mod).items():
            params = mod[name].params
            shapes = [static_shape(param) for param in params]
            kernel = find_kernel(mod[name])
            if kernel is None or any(
                shape is None or str(param.ty.dtype) != "float32"
                for shape, param in zip(shapes, params, strict=True)
            ):
                continue
            outputs = len(params) - len(calls[0].args[1].fields)
            operands = Operands(tuple(shape for shape in shapes if shape is not None), outputs)
            known = found.get(kernel.workload)
            total = len(calls) + (known.calls if known else 0)
            default = known.default if known else schedule_kernel(kernel, target, name)
            if any(len(options) > 1 for options in default.knobs.space.values()):
                found[kernel.workload] = KernelTask(name, kernel, operands, total, default)
    return list(found.values())


def kernel_calls(mod: tvm.IRModule) -> dict[str, list[Any]]:
    """Return the calls of each kernel in one inference."""
    calls: dict[str, list[Any]] = {}

    def visit(expr: object) -> None:
        if is_call(expr, "relax.call_tir") and isinstance(mod[expr.args[0]], tirx.PrimFunc):
            calls.setdefault(expr.args[0].name_hint, []).append(expr)

    for _, func in mod.functions_items():
        if isinstance(func, relax.Function):
            relax.analysis.post_order_visit(func, visit)
    return calls
