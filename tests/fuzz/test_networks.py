"""A sample of the random networks, and whether a fault among them would be seen."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.fuzz.draw import FAMILIES
from tests.fuzz.judge import Verdict
from tests.fuzz.network import Cut, build, smaller, whole
from tests.fuzz.networks import Worker, judged, packs


def die(cuts: Sequence[Cut]) -> list[Verdict]:
    """Crash on one network, as compiled code might."""
    if any(each.seed == 3 for each in cuts):
        os.kill(os.getpid(), signal.SIGSEGV)
    return [Verdict(each, "right") for each in cuts]


def test_a_crash_is_one_networks() -> None:
    worker = Worker(die)
    verdicts = worker([Cut(seed) for seed in range(2, 5)])
    worker.close()
    assert [each.kind for each in verdicts] == ["right", "crashed", "right"]


def test_a_log_says_what_is_done(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [("host", [1, 2]), ("onnx", [3]), ("host", [4])]
    lines = [json.dumps({"way": way, "precision": "fp32", "seeds": each}) for way, each in rows]
    log.write_text("\n".join(lines))
    assert judged(log, "host", "fp32") == {1, 2, 4}
    assert judged(log, "host", "fp16") == set()


def test_packs_hold_every_seed_once() -> None:
    found = list(packs(range(120), 12))
    assert [seed for each in found for seed in each] == list(range(120))
    assert {len(each) for each in found} == {1, 11, 12}


def test_every_family_is_drawn() -> None:
    """A family whose operators never fit any value would test nothing."""
    drawn = {step.layer.function.__module__ for seed in range(150) for step in whole(seed)[0].steps}
    assert drawn >= {each.__module__ for family in FAMILIES.values() for each in family}


def test_networks_are_equal_for_equal_seeds() -> None:
    whole.cache_clear()
    first = build(Cut(7))
    whole.cache_clear()
    again = build(Cut(7))
    assert str(first) == str(again)
    for x, y in zip(first.given.values(), again.given.values(), strict=True):
        assert torch.equal(x, y)


def test_cuts_compute_what_the_whole_does() -> None:
    network, values = whole(3)
    for cut in smaller(Cut(3)):
        if not cut.skipped:
            part = build(cut)
            for number, y in zip(part.outputs, part(*part.given.values()), strict=True):
                torch.testing.assert_close(y, values[number])
            assert len(part.steps) < len(network.steps)
