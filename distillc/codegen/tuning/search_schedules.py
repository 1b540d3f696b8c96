"""Search the schedule space of one kernel.

1. Candidates are drawn from the neighbourhood of the best, a few at a time, and priced together
   with it and with the default, in turn.
2. Whoever wins must win again, by more than the noise.
3. A candidate whose results differ from the default's is out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from distillc.codegen.knobs import ScheduleChoice
from distillc.codegen.schedule.apply_rules import Kernel, Scheduled, schedule_kernel
from distillc.codegen.tuning.price_kernels import Costs, Group, KernelPricer, Operands
from distillc.errors import DeviceError, LoweringError
from distillc.targets.base import Target
from distillc.workdir import digest

log = logging.getLogger(__name__)

NOISE = 0.02
"""A candidate that saves no more than this share has not won."""
TOLERANCE = 1e-4
"""Largest difference from the default's results, over their largest value."""
BATCH = 6
"""Candidates that are built and priced together."""
PATIENCE = 3
"""Batches in a row without a winner that end a search."""
RACE_MS = 1500.0
"""Time of a race on a clock; it decides on the number of rounds."""
ROUNDS = (5, 30)
"""Least and most rounds of a race."""


@dataclass(frozen=True)
class KernelTask:
    """A kernel to search.

    Attributes:
        name: A name that it had.
        kernel: The kernel.
        operands: What it is called with.
        calls: How often one inference of each network calls it, all together.
        default: Its schedule without a record.
    """

    name: str
    kernel: Kernel
    operands: Operands
    calls: int
    default: Scheduled

    @property
    def space(self) -> str:
        """Digest of the space, as far as the default's answers lead."""
        return digest({name: sorted(each) for name, each in self.default.knobs.space.items()})


def search(
    task: KernelTask,
    target: Target,
    pricer: KernelPricer,
    cost: float,
    deadline: float,
    known: ScheduleChoice | None = None,
) -> tuple[Scheduled, float, float]:
    """Return the best schedule of a kernel, the cost of the default, and its own.

    Args:
        task: The kernel.
        target: What it is compiled for.
        pricer: Prices candidates.
        cost: Cost of the default.
        deadline: End of the search on `time.monotonic`'s clock, seconds; the last race may end
            later. It ends sooner when nothing wins any more or nothing is left.
        known: What a record says that is tried first.

    Raises:
        LoweringError: The default cannot be built.
        DeviceError: It cannot be run.
    """
    space = _Space(task, target, pricer.code_only)
    best, idle = task.default, 0
    first = [known] if known else []
    while idle < PATIENCE and time.monotonic() < deadline:
        batch = space.draw(best, first)
        first = []
        if not batch:
            break
        winner = _race(task, pricer, cost, best, batch)
        idle = 0 if winner else idle + 1
        best = winner or best
    before, after = _costs(task, pricer, cost, [task.default, best], 2).values
    if after >= before * (1 - NOISE):
        return task.default, before, before
    return best, before, after


class _Space:
    """Draws schedules of one kernel that were not drawn before, the same in every run."""

    def __init__(self, task: KernelTask, target: Target, code_only: bool) -> None:
        self._task, self._target, self._code_only = task, target, code_only
        self._random = Random(task.kernel.workload)
        self._seen = {_key(task.default)}

    def draw(self, best: Scheduled, first: Sequence[ScheduleChoice]) -> list[Scheduled]:
        """Return up to `BATCH` schedules: those of `first`, then changes of the best."""
        batch: list[Scheduled] = []
        for attempt in range(8 * BATCH):
            choice = first[attempt] if attempt < len(first) else self._change(best)
            if choice is None or len(batch) == BATCH:
                break
            candidate = schedule_kernel(self._task.kernel, self._target, self._task.name, choice)
            # A schedule that could not be made left the kernel to another rule.
            if candidate.rule == best.rule and _key(candidate) not in self._seen:
                self._seen.add(_key(candidate))
                batch.append(candidate)
        return batch

    def _change(self, best: Scheduled) -> ScheduleChoice | None:
        """Change mostly one knob, sometimes two, now and then all; None without knobs."""
        knobs = [
            name
            for name, options in best.knobs.space.items()
            if len(options) > 1 and not (self._code_only and name in best.knobs.unseen)
        ]
        if not knobs:
            return None
        (count,) = self._random.choices((1, 2, len(knobs)), (5, 3, 2))
        drawn = {
            name: self._random.choice(best.knobs.space[name])
            for name in self._random.sample(knobs, min(count, len(knobs)))
        }
        return ScheduleChoice(best.rule, {**best.knobs.values, **drawn})


def _race(
    task: KernelTask, pricer: KernelPricer, cost: float, best: Scheduled, batch: Sequence[Scheduled]
) -> Scheduled | None:
    """Return the cheapest of a batch if it beats the best so far twice."""
    field = [task.default] if best is task.default else [task.default, best]
    try:
        found = _costs(task, pricer, cost, [*field, *batch], 1)
        fit = [
            (value, number)
            for number, (value, error) in enumerate(zip(found.values, found.errors, strict=True))
            if number >= len(field) and error <= TOLERANCE
        ]
        if not fit or min(fit)[0] >= found.values[len(field) - 1] * (1 - NOISE):
            return None
        winner = batch[min(fit)[1] - len(field)]
        *_, known, value = _costs(task, pricer, cost, [*field, winner], 2).values
    except (DeviceError, LoweringError) as error:
        # One candidate may be more than the compiler or the device can take.
        log.warning("candidates for %s are passed over: %s", task.name, error.what)
        return None
    return winner if value < known * (1 - NOISE) else None


def _costs(
    task: KernelTask, pricer: KernelPricer, cost: float, schedules: Sequence[Scheduled], times: int
) -> Costs:
    """Price schedules in as many rounds as fit `RACE_MS`, `times` as many."""
    rounds = int(RACE_MS / (cost * len(schedules)))
    rounds = times * max(ROUNDS[0], min(ROUNDS[1], rounds))
    (found,) = pricer([Group(tuple(each.func for each in schedules), task.operands)], rounds)
    return found


def _key(scheduled: Scheduled) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(scheduled.knobs.values.items()))
