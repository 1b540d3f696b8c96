"""search: what wins, what does not, and that runs are alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from distillc.codegen.knobs import ScheduleChoice
from distillc.codegen.tuning.price_kernels import Costs, Group, Measured
from distillc.codegen.tuning.search_schedules import NOISE, TOLERANCE, KernelTask, search
from distillc.codegen.tuning.tuner import find_tasks
from distillc.errors import DeviceError
from distillc.targets.base import get_target
from tests.codegen.schedule.rules.kernels import SSE, lower, random

FAR = time.monotonic() + 1e6


@dataclass
class Priced:
    """Prices schedules by a function of their text's unrolled loops, and notes who was priced."""

    price: Callable[[str], float]
    error: float = 0.0
    unit: str = "ms"
    code_only: bool = False
    fields: list[int] = field(default_factory=list)

    def __call__(self, groups: Sequence[Group], rounds: int) -> list[Costs]:
        self.fields += [len(group.funcs) for group in groups]
        return [
            Costs(
                tuple(self.price(func.script()) for func in group.funcs),
                (0.0, *[self.error] * (len(group.funcs) - 1)),
            )
            for group in groups
        ]


def task() -> KernelTask:
    (found,) = find_tasks([lower(nn.Conv2d(16, 48, 1, bias=False), random(1, 16, 32, 32))], SSE)
    return found


def narrow(text: str) -> float:
    """One vector of columns is cheapest."""
    return 1.0 if "T.unroll(T.int64(1))" in text or "T.unroll(1)" in text else 2.0


def knobs(cost: Priced, known: ScheduleChoice | None = None) -> Mapping[str, int]:
    return search(task(), SSE, cost, 1.0, FAR, known)[0].knobs.values


def test_what_is_cheaper_wins_and_runs_are_alike() -> None:
    best, before, after = search(task(), SSE, Priced(narrow), 1.0, FAR)
    assert (before, after) == (2.0, 1.0)
    assert best.knobs.values == knobs(Priced(narrow))
    assert best.knobs.values != task().default.knobs.values


def test_gains_below_the_noise_do_not_count() -> None:
    slight = Priced(lambda text: 1.0 - NOISE / 2 * (narrow(text) == 1.0))
    assert knobs(slight) == task().default.knobs.values


def test_wrong_results_do_not_win() -> None:
    assert knobs(Priced(narrow, error=2 * TOLERANCE)) == task().default.knobs.values


def test_knobs_that_the_cost_cannot_see_keep_their_defaults() -> None:
    found, default = knobs(Priced(narrow, code_only=True)), task().default.knobs
    assert default.unseen == {"run"}
    assert found["run"] == default.values["run"]
    assert found != default.values


def test_without_time_only_the_default_is_priced() -> None:
    cost = Priced(narrow)
    best, *_ = search(task(), SSE, cost, 1.0, time.monotonic())
    assert best.knobs.values == task().default.knobs.values
    assert cost.fields == [2]


def test_a_known_record_is_tried_first() -> None:
    known = ScheduleChoice("schedule_contraction", {"vectors": 1, "height": 2})
    texts: list[str] = []

    def note(text: str) -> float:
        texts.append(text)
        return 1.0

    search(task(), SSE, Priced(note), 1.0, FAR, known)
    assert "T.unroll(T.int64(2))" in texts[1] or "T.unroll(2)" in texts[1]


def test_candidates_that_cannot_run_are_said_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Priced):
        def __call__(self, groups: Sequence[Group], rounds: int) -> list[Costs]:
            if any(len(group.funcs) > 2 for group in groups):
                raise DeviceError("running compiled code failed")
            return super().__call__(groups, rounds)

    assert knobs(Broken(narrow)) == task().default.knobs.values
    assert "running compiled code failed" in caplog.text


def test_this_machine_measures_candidates() -> None:
    host = get_target("host")
    mod = lower(nn.Conv2d(16, 48, 1, bias=False), random(1, 16, 32, 32))
    (found,) = find_tasks([mod], host)
    torch.set_num_threads(1)
    _, before, after = search(found, host, Measured(host, "host"), 1.0, time.monotonic() + 1)
    assert 0 < after <= before
