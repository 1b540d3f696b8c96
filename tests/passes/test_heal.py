from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillc.errors import PreconditionError, UsageError
from distillc.frontend.structure import module_digest
from distillc.network import KEEP, Network
from distillc.passes import heal as heal_module
from distillc.passes import training
from distillc.passes.heal import Heal
from distillc.pipeline import Context
from distillc.stages import WorkDir

from .toy import Killed, KilledAt, Recorder, toy_network

HEAL = Heal(steps=10, batch=2, patch=16, lr=2e-3)


def decided() -> Network:
    return toy_network().with_(decisions={"blocks.0": "toy", "blocks.1": KEEP})


def same(one: Network, other: Network) -> bool:
    assert one.healed is not None
    assert other.healed is not None
    return all(torch.equal(tensor, other.healed[name]) for name, tensor in one.healed.items())


def test_the_hybrid_gets_better_and_its_parts_stay() -> None:
    net = decided()
    before = module_digest(net.module), module_digest(net.hybrid())
    result = Heal(steps=40, batch=4, patch=16, lr=5e-3)(net)
    figures = result.metrics["heal"]
    assert figures["psnr_after"] > figures["psnr_before"]
    assert figures["accepted"] is True
    assert figures["steps"] == 40
    assert result.healed is not None
    hybrid = result.hybrid()
    assert set(result.healed) == set(hybrid.state_dict())
    assert torch.equal(hybrid.state_dict()["tail.weight"], result.healed["tail.weight"])
    assert (module_digest(net.module), module_digest(net.hybrid())) == before
    assert net.healed is None


def test_a_worse_result_is_dropped() -> None:
    net = decided()
    result = Heal(steps=3, batch=1, patch=16, lr=10.0)(net)
    assert result.healed is None
    assert result.metrics["heal"]["accepted"] is False
    assert "not better" in result.log[-1].notes[1]
    assert module_digest(result.hybrid()) == module_digest(net.hybrid())


def test_further_rounds_where_much_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, work = decided(), WorkDir(tmp_path)
    once = HEAL(net, Context(work)).metrics["heal"]
    monkeypatch.setattr(heal_module, "ENOUGH", -100.0)
    monkeypatch.setattr(heal_module, "LITTLE", 0.0)
    pass_ = replace(HEAL, rounds=3)
    result = pass_(net, Context(work))
    figures = result.metrics["heal"]
    assert figures["steps"] > 10
    assert figures["psnr_before"] == once["psnr_before"]
    assert figures["psnr_after"] >= once["psnr_after"]
    assert same(result, pass_(net, Context(work)))
    monkeypatch.setattr(heal_module, "ENOUGH", 100.0)
    assert pass_(net, Context(work)).metrics["heal"] == once


def test_nothing_replaced_is_left_alone() -> None:
    net = toy_network().with_(decisions={"blocks.0": KEEP, "blocks.1": KEEP})
    result = HEAL(net)
    assert result.healed is None
    assert result.log[-1].modified is False
    assert "nothing to heal" in result.log[-1].notes[0]


@pytest.mark.parametrize("killed_at", [1, 6])
def test_a_killed_run_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    net, work = decided(), WorkDir(tmp_path)
    with pytest.raises(Killed):
        HEAL(net, KilledAt(work, killed_at))
    resumed = Recorder(work)
    result = HEAL(net, resumed)
    assert resumed.lines[0][0] == killed_at + 1
    whole = HEAL(net)
    assert same(result, whole)
    assert result.metrics["heal"] == whole.metrics["heal"]
    assert not list(tmp_path.rglob("*.pt"))


def test_a_finished_stage_is_read_back(tmp_path: Path) -> None:
    net, work = decided(), WorkDir(tmp_path)
    first = HEAL(net, Context(work))
    again = Recorder(work)
    second = HEAL(net, again)
    assert again.lines == []
    assert same(first, second)
    assert first.metrics == second.metrics
    other = Recorder(work)
    HEAL(net.with_(decisions={"blocks.0": KEEP, "blocks.1": "toy"}), other)
    assert len(other.lines) == 10


def test_healing_goes_on_from_healed_weights() -> None:
    first = HEAL(decided())
    second = HEAL(first)
    assert second.metrics["heal"]["psnr_before"] == pytest.approx(
        first.metrics["heal"]["psnr_after"]
    )


def test_what_it_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heal_module, "open_data", None)
    with pytest.raises(PreconditionError, match="no decisions"):
        HEAL(toy_network())
    with pytest.raises(UsageError, match="multiples of 2"):
        Heal(patch=15)(decided())
