"""`distillc tune`: words to the API, its result to people and programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillc.codegen.schedule.records import TuningRecord
from distillc.codegen.tuning.tuner import TuningResult

Run = Callable[..., tuple[int, str, str]]
KNOBS = {"height": 4, "run": 8}
RECORD = TuningRecord("0" * 16, "1x8", "x86-64", "schedule_gram", KNOBS, "s", 2.0, 1.0, "ms")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replace the search; return what it is called with."""
    found: list[tuple[Any, ...]] = []

    def tune(*arguments: Any, **options: Any) -> TuningResult:
        found.append((*arguments, options["device"]))
        return TuningResult((RECORD,), 3, 4, 2.0, 1.0, "ms", Path("records.jsonl"))

    monkeypatch.setattr("distillc.tuning.tune", tune)
    return found


def test_words_reach_the_search(calls: list, tiny_checkpoint: Path, run: Run) -> None:
    sizes = ["--size", 32, "--size", "64x32"]
    code, out, _ = run("tune", tiny_checkpoint, tiny_checkpoint, *sizes, "--minutes", 0.5)
    assert code == 0
    ((networks, *rest),) = calls
    assert [net.source["architecture"] for net in networks] == ["Restormer"] * 2
    assert rest == ["host", ((32, 32), (64, 32)), 0.5, None]
    assert "height 4, run 8" in out
    assert "2.00" in out


def test_json(calls: list, tiny_checkpoint: Path, run: Run) -> None:
    code, out, _ = run("tune", tiny_checkpoint, "--target", "snapdragon8elite", "--json")
    data = json.loads(out)
    assert code == 0
    assert calls[0][1:] == ("snapdragon8elite", ((256, 256),), 10.0, None)
    assert data["records"][0]["knobs"] == KNOBS
    assert (data["known"], data["left"], data["path"]) == (3, 4, "records.jsonl")
