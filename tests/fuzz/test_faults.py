"""Damage of every kind to files of a work folder: the same passes give the same result.

Here each kind meets a few files, `python -m tests.fuzz.faults` has all of them and the command too.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from distillc.frontend.structure import module_digest
from distillc.passes import training
from distillc.passes.distill_blocks import DistillBlocks
from distillc.pipeline import Context
from distillc.stages import Stage, WorkDir
from tests.fuzz.damage import EVERY
from tests.fuzz.faults import CASES, FILES, SMALL, run_passes, try_damage
from tests.passes.toy import Killed, KilledAt, toy_network

Finished = tuple[Path, object]

SOME = [(list(FILES)[number % len(FILES)], kind) for number, kind in enumerate(EVERY)]
SOME += [case for case in CASES if case[1] not in EVERY and "judged" not in case[0]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A work folder in which all is done, and what came out."""
    folder = tmp_path_factory.mktemp("finished") / "work"
    outcome, warnings = run_passes(folder)
    assert not warnings
    return folder, outcome


def test_there_are_more_than_forty_kinds() -> None:
    assert len({kind for _, kind in CASES}) >= 28
    assert len(CASES) >= 150


@pytest.mark.parametrize(("pattern", "kind"), SOME, ids=[" ".join(case) for case in SOME])
def test_damage_changes_nothing(
    pattern: str, kind: str, finished: Finished, tmp_path: Path
) -> None:
    folder, outcome = finished
    assert not try_damage(folder, outcome, pattern, kind, tmp_path / "work")


@pytest.mark.parametrize("kind", EVERY)
def test_a_damaged_state_costs_only_its_steps(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    distill, net, work = DistillBlocks(**SMALL), toy_network(), WorkDir(tmp_path)
    with pytest.raises(Killed):
        distill(net, KilledAt(work, 1))
    (path,) = tmp_path.glob("distill-*/*.pt")
    EVERY[kind](path, random.Random(kind))
    result, whole = distill(net, Context(work)), distill(net)
    for name, found in result.candidates.items():
        for one, other in zip(found, whole.candidates[name], strict=True):
            assert one.fidelity == other.fidelity
            assert module_digest(one.module) == module_digest(other.module)


def test_a_state_of_another_network_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    stage = Stage(tmp_path)
    state = training.RunState(stage)
    state._saved = -1e9
    state.save({"first": first, "second": torch.nn.Linear(3, 3)}, 5)
    before = module_digest(first), module_digest(second)
    torch.nn.init.zeros_(first.weight)
    zeroed = module_digest(first)
    assert state.load({"first": first, "second": second}) == 0
    assert (module_digest(first), module_digest(second)) == (zeroed, before[1])
    assert list(tmp_path.glob("run.pt.damaged-1"))
