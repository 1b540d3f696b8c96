"""A sample of the random networks, and whether a fault among them would be seen."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from distillc.codegen.operators.forms import DECOMPOSITIONS
from distillc.errors import LoweringError
from distillc.runtime.devices.local import missing_parts
from tests.fuzz.draw import FAMILIES
from tests.fuzz.judge import Verdict, _refusals, judge
from tests.fuzz.network import Cut, build, smaller, whole
from tests.fuzz.networks import Worker, judged, minimise, packs, uses_complex

SAMPLES = [
    ("host", "fp32", range(12)),
    ("host", "fp32", range(12, 22)),
    ("aarch64", "fp32", range(100, 104)),
    ("onnx", "fp32", range(200, 206)),
    ("host", "fp16", (300, 301, 303, 304)),
]
"""Thirty-six networks: way, precision, seeds."""


@pytest.mark.parametrize(("way", "precision", "seeds"), SAMPLES)
def test_networks_agree_with_torch(way: str, precision: str, seeds: Sequence[int]) -> None:
    if way == "aarch64" and (missing := missing_parts()):
        pytest.skip(f"the emulator is not complete: {', '.join(missing)} missing")
    verdicts = judge([Cut(seed) for seed in seeds], way, precision)
    assert [each for each in verdicts if each.kind not in ("right", "refused")] == []
    assert sum(each.kind == "right" for each in verdicts) >= 0.6 * len(seeds)


def test_a_wrong_number_is_found_and_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    cumsum = torch.ops.aten.cumsum.default
    monkeypatch.setitem(DECOMPOSITIONS, cumsum, lambda x, dim, dtype=None: 1.001 * x)
    wrong, right = judge([Cut(452), Cut(7)], "host")
    assert (wrong.kind, right.kind) == ("wrong", "right")
    small = minimise(wrong, functools.partial(judge, way="host"))
    assert [step.layer.text for step in build(small.cut).steps] == ["cumsum(axis=-1)"]


def test_the_networks_that_an_error_refuses_are_named() -> None:
    text = """operators that cannot be compiled yet:
    cummax.default, used in networks.2.layers.1 (File "a.py"), networks.10.layers.4 (File "b.py")
    fmax.default, used in networks.2.layers.3 (File "a.py")"""
    found = _refusals(LoweringError(text))
    assert found == {2: "cummax.default, fmax.default", 10: "cummax.default"}
    assert _refusals(LoweringError("building for host failed: cummax.default")) == {}
    assert _refusals(ValueError(text)) == {}


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
    assert sorted(seed for each in found for seed in each) == list(range(120))
    assert [len(each) for each in found] == [1, *[12] * 9, 1, 10]
    mixed = [each for each in found if {True, False} == {*map(uses_complex, each)}]
    assert len(mixed) <= 2


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
