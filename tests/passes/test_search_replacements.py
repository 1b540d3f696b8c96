"""SearchReplacements: the same result by seed, whether or not it was killed on the way."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distillc.data.images import open_data
from distillc.errors import PreconditionError, QualityError, StorageError, UsageError
from distillc.network import KEEP, Cost, Network
from distillc.passes import search_replacements as search_module
from distillc.passes.search_replacements import (
    Evaluator,
    SearchReplacements,
    cost_function,
    first_trials,
)
from distillc.passes.training import mean_psnr
from distillc.pipeline import Context
from distillc.workdir import WorkDir, weights_digest

from .toy import Killed, toy_network

SEARCH = SearchReplacements(objective="macs", trials=12, images=1, crop=16)
NAMES = ("blocks.0", "blocks.1")
Evaluate = Callable[[Evaluator, Mapping[str, str]], float]


def distilled() -> Network:
    """Two blocks of 80 kMACs, their attention 30; surrogates of 10, of unequal fidelity."""
    net = toy_network()
    blocks = tuple(
        replace(block, cost=Cost(100, 80_000), attention_cost=Cost(40, 30_000))
        for block in net.blocks
    )
    candidates = {
        name: tuple(
            replace(each, fidelity=(0.2, 0.5)[index] + 0.1 * number, cost=Cost(1, 10_000))
            for index, each in enumerate(found)
        )
        for number, (name, found) in enumerate(net.candidates.items())
    }
    return net.with_(blocks=blocks, candidates=candidates)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What was evaluated; the PSNR falls by one for every block and by less for an attention."""
    seen: list[dict[str, str]] = []

    def evaluate(self: Evaluator, decisions: Mapping[str, str]) -> float:
        seen.append(dict(decisions))
        loss = {KEEP: 0.0, "toy": 1.0, "toy@attention": 0.3}
        return 30 - sum(loss[label] for label in decisions.values())

    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    return seen


def outcome(net: Network) -> object:
    return net.front, dict(net.decisions), net.metrics["search"]


def test_the_front_and_the_knee(evaluated: list[dict[str, str]]) -> None:
    net = distilled()
    result = SEARCH(net)
    front = result.front
    assert [point.cost for point in front] == sorted(point.cost for point in front)
    assert [point.psnr for point in front] == sorted(point.psnr for point in front)
    assert front[-1].decisions == dict.fromkeys(NAMES, KEEP)
    assert front[0].decisions == dict.fromkeys(NAMES, "toy")
    assert front[-1].psnr == 30
    assert dict(result.decisions) in [dict(point.decisions) for point in front]
    assert result.metrics["search"]["teacher"] == [front[-1].cost, 30]
    assert "hybrids evaluated" in result.log[-1].notes[0]
    assert net.front == ()
    assert net.decisions == {}


def test_no_hybrid_is_evaluated_twice(evaluated: list[dict[str, str]]) -> None:
    result = replace(SEARCH, trials=40)(distilled())
    assert len(evaluated) == len(result.metrics["search"]["points"]) <= 9
    names = [json.dumps(each, sort_keys=True) for each in evaluated]
    assert len(set(names)) == len(names)


@pytest.mark.usefixtures("evaluated")
def test_seed_decides() -> None:
    net = distilled()
    one, same = (SEARCH(net, Context(seed=3)) for _ in range(2))
    assert outcome(one) == outcome(same)


@pytest.mark.parametrize("killed_at", [1, 3, 6])
def test_killed_search_goes_on(
    tmp_path: Path,
    evaluated: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: int,
) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    search = replace(SEARCH, trials=30)
    evaluate: Evaluate = Evaluator.__call__

    def killed(self: Evaluator, decisions: Mapping[str, str]) -> float:
        if len(evaluated) == killed_at:
            raise Killed
        return evaluate(self, decisions)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", killed)
        with pytest.raises(Killed):
            search(net, ctx)
    assert len(evaluated) == killed_at
    resumed = search(net, ctx)
    names = [json.dumps(each, sort_keys=True) for each in evaluated]
    assert len(set(names)) == len(names)
    (journal,) = tmp_path.glob("search-*/journal.log")
    states = [json.loads(line) for line in journal.read_text().splitlines()]
    finished = [each for each in states if each.get("state") == 1]
    assert len(finished) == search.trials
    first = [dict(each) for each in first_trials(net, cost_function(net, "macs"))]
    assert all(each in evaluated for each in first)
    assert outcome(resumed) == outcome(search(net))


@pytest.mark.usefixtures("evaluated")
def test_search_goes_on_wherever_its_journal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two records, or within one by a power cut."""
    monkeypatch.setattr(search_module, "plot_front", lambda *_: None)
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    wanted = outcome(SEARCH(net, ctx))
    (journal,) = tmp_path.glob("search-*/journal.log")
    whole = journal.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    cuts = [0, *ends[:10], *ends[10::16], ends[4] - 1, ends[20] + 1, ends[30] - 9]
    for cut in cuts:
        journal.write_bytes(whole[:cut])
        assert outcome(SEARCH(net, ctx)) == wanted, f"cut to {cut} bytes"


@pytest.mark.usefixtures("evaluated")
def test_full_disk_is_said_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    append = search_module.JournalFileBackend.append_logs
    written = 0

    def full(self: object, logs: list[dict[str, object]]) -> None:
        nonlocal written
        written += 1
        if written < 40:
            return append(self, logs)
        (journal,) = tmp_path.glob("search-*/journal.log")
        with journal.open("ab") as stream:
            stream.write(b'{"op_code":')  # what still fitted
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(search_module.JournalFileBackend, "append_logs", full)
        with pytest.raises(StorageError, match="the disk is full"):
            SEARCH(net, ctx)
    assert outcome(SEARCH(net, ctx)) == outcome(SEARCH(net))


def test_other_latencies_are_another_search(
    tmp_path: Path, evaluated: list[dict[str, str]]
) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    net = net.with_(
        candidates={
            name: tuple(replace(each, latency_ms=1.0) for each in found)
            for name, found in net.candidates.items()
        }
    )
    for block_ms, rest_ms in ((4.0, 2.0), (5.0, 2.0), (5.0, 3.0)):
        blocks = tuple(replace(block, latency_ms=block_ms) for block in net.blocks)
        timed = net.with_(blocks=blocks, metrics={"profile": {"rest_ms": rest_ms}})
        result = replace(SEARCH, objective="latency")(timed, ctx)
        assert result.metrics["search"]["teacher"][0] == 2 * block_ms + rest_ms


def test_finished_search_is_read_back(tmp_path: Path, evaluated: list[dict[str, str]]) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    first = SEARCH(net, ctx)
    count = len(evaluated)
    again = SEARCH(net, ctx)
    assert len(evaluated) == count
    assert outcome(first) == outcome(again)
    replace(SEARCH, images=2)(net, ctx)
    assert len(evaluated) > count  # another question, another answer


@pytest.mark.usefixtures("evaluated")
def test_files(tmp_path: Path) -> None:
    result = SEARCH(distilled(), Context(WorkDir(tmp_path)))
    (stage,) = tmp_path.glob("search-*")
    data = json.loads((stage / "front.json").read_text())
    assert data["decisions"] == [dict(point.decisions) for point in result.front]
    assert data["front"] == [[point.cost, point.psnr] for point in result.front]
    assert data["chosen"] in data["front"]
    assert (stage / "front.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.usefixtures("evaluated")
def test_limits_choose() -> None:
    net = distilled()
    careful = replace(SEARCH, trials=40, max_drop=0.7)(net)
    psnr = careful.metrics["search"]["chosen"][1]
    assert psnr >= 30 - 0.7
    assert careful.decisions == dict.fromkeys(NAMES, "toy@attention")
    fast = replace(SEARCH, trials=40, min_speedup=2.2)(net)
    assert fast.decisions == dict.fromkeys(NAMES, "toy")


@pytest.mark.usefixtures("evaluated")
def test_no_feasible_hybrid_names_the_nearest_and_keeps_the_files(tmp_path: Path) -> None:
    ctx = Context(WorkDir(tmp_path))
    with pytest.raises(QualityError, match="no hybrid meets the limits; the nearest") as caught:
        replace(SEARCH, max_drop=0.1, min_speedup=5)(distilled(), ctx)
    assert "--min-speedup" in str(caught.value)
    assert caught.value.exit_code == 9
    (stage,) = tmp_path.glob("search-*")
    assert "chosen" not in json.loads((stage / "front.json").read_text())
    assert (stage / "front.png").exists()


def test_costs() -> None:
    net = distilled()
    keep = dict.fromkeys(NAMES, KEEP)
    macs = cost_function(net, "macs")
    assert macs(keep) - macs(keep | {"blocks.0": "toy"}) == pytest.approx(70e-6)
    assert macs(keep) - macs(keep | {"blocks.0": "toy@attention"}) == pytest.approx(20e-6)
    blocks = cost_function(net, "transformers")
    assert blocks(keep) == 2
    assert blocks(keep | {"blocks.1": "toy"}) == 1
    assert 0 < blocks(dict.fromkeys(NAMES, "toy")) < 1e-3
    timed = net.with_(
        blocks=tuple(replace(block, latency_ms=4.0) for block in net.blocks),
        candidates={
            name: tuple(replace(each, latency_ms=1.5) for each in found)
            for name, found in net.candidates.items()
        },
        metrics={"profile": {"rest_ms": 2.0}},
    )
    latency = cost_function(timed, "latency")
    assert latency(keep) == 10
    assert latency(keep | {"blocks.0": "toy"}) == 7.5


def test_first_trials() -> None:
    net = distilled()
    first = first_trials(net, cost_function(net, "macs"))
    assert first[0] == dict.fromkeys(NAMES, KEEP)
    assert first[1] == dict.fromkeys(NAMES, "toy")  # the most faithful of each
    assert {"blocks.0": "toy", "blocks.1": KEEP} in first
    assert {"blocks.0": KEEP, "blocks.1": "toy"} in first
    assert len({json.dumps(each, sort_keys=True) for each in first}) == len(first) == 4


def test_blocks_without_candidates_stay(evaluated: list[dict[str, str]]) -> None:
    net = distilled()
    net = net.with_(candidates={"blocks.0": net.candidates["blocks.0"]})
    SEARCH(net)
    assert {each["blocks.1"] for each in evaluated} == {KEEP}


def test_evaluator_equals_the_hybrid_and_changes_nothing() -> None:
    net = distilled()
    with torch.no_grad():
        for found in net.candidates.values():
            for each in found:
                for weight in each.module.parameters():
                    weight.normal_(0, 0.05)
    before = weights_digest(net.module)
    data = open_data(None, "denoise:sigma=25")
    evaluator = Evaluator(net, data, 2, 16, "cpu")
    pairs = data.held_out(2, 16)
    choices = (KEEP, "toy", "toy@attention")
    for one in choices:
        for two in choices:
            decisions = {"blocks.0": one, "blocks.1": two}
            wanted = mean_psnr(net.hybrid(decisions), pairs, "cpu")
            assert evaluator(decisions) == pytest.approx(wanted, abs=1e-4)
    assert weights_digest(net.module) == before


def test_evaluator_recovers_from_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    net = distilled()
    evaluator = Evaluator(net, open_data(None, "denoise:sigma=25"), 1, 16, "cpu")
    keep = evaluator(dict.fromkeys(NAMES, KEEP))

    def fail(*_: object) -> float:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(search_module, "mean_psnr", fail)
        with pytest.raises(RuntimeError):
            evaluator(dict.fromkeys(NAMES, "toy"))
    assert evaluator(dict.fromkeys(NAMES, KEEP)) == keep


def test_what_it_requires() -> None:
    with pytest.raises(UsageError, match="unknown objective 'joules'") as caught:
        SearchReplacements(objective="joules")
    assert "latency" in str(caught.value)
    net = distilled()
    with pytest.raises(PreconditionError, match="no candidates"):
        SEARCH(net.with_(candidates={}))
    with pytest.raises(PreconditionError, match="not distilled"):
        SEARCH(toy_network())
    with pytest.raises(PreconditionError, match="not timed"):
        replace(SEARCH, objective="latency")(net)
    with pytest.raises(UsageError):
        replace(SEARCH, task="sr:scale=2")(net)
