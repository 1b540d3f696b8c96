"""SearchReplacements: the same result by seed, whether or not it was killed on the way."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from distillc import stages
from distillc.errors import PassError, PreconditionError, QualityError, StorageError, UsageError
from distillc.network import KEEP, Cost, Network
from distillc.passes import search_replacements as search_module
from distillc.passes.search_replacements import AIMED, SearchReplacements
from distillc.pipeline import Context
from distillc.search.evaluator import Evaluator
from distillc.stages import WorkDir
from distillc.workdir import storage_errors

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
        seen.append({**decisions, "images": str(len(self._pairs))})
        loss = {KEEP: 0.0, "toy": 1.0, "toy@attention": 0.3}
        return 30 - sum(loss[label] for label in decisions.values())

    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    return seen


def searched(evaluated: list[dict[str, str]]) -> list[str]:
    """What was evaluated during the search; the front is judged on more images after it."""
    return [json.dumps(each, sort_keys=True) for each in evaluated if each["images"] == "1"]


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
    names = searched(evaluated)
    assert len(set(names)) == len(names) == len(result.metrics["search"]["points"]) == 9


@pytest.mark.parametrize("kept", [True, False])
def test_a_hybrid_whose_output_is_not_finite_is_on_no_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    def evaluate(self: Evaluator, decisions: Mapping[str, str]) -> float:
        labels = list(decisions.values())
        bad = math.nan if labels[0] == "toy" else math.inf
        return bad if "toy" in labels else 30 - 0.3 * labels.count("toy@attention")

    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    monkeypatch.setattr(search_module, "plot_front", lambda *_: None)
    ctx = Context(WorkDir(tmp_path) if kept else None)
    net = distilled()
    for _ in range(2):  # evaluated, and remembered
        result = SEARCH(net, ctx)
        points = result.metrics["search"]["points"]
        assert all(math.isfinite(psnr) for _, psnr in points)
        assert len(points) == 4
        assert not [each for each in result.front if "toy" in each.decisions.values()]
        assert "5 hybrids left out: their output is not finite" in result.log[-1].notes[1]
    with pytest.raises(QualityError, match="finite"):
        replace(SEARCH, replace={"blocks.0": "toy"})(net, ctx)


def test_a_network_whose_output_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluator, "__call__", lambda *_: math.nan)
    with pytest.raises(PassError, match="the network's output is not finite"):
        SEARCH(distilled())


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
    evaluate: Evaluate = Evaluator.__call__

    def killed(self: Evaluator, decisions: Mapping[str, str]) -> float:
        if len(evaluated) == killed_at:
            raise Killed
        return evaluate(self, decisions)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", killed)
        with pytest.raises(Killed):
            SEARCH(net, ctx)
    assert len(evaluated) == killed_at
    resumed = SEARCH(net, ctx)
    names = searched(evaluated)
    assert len(set(names)) == len(names)
    assert outcome(resumed) == outcome(SEARCH(net))


@pytest.mark.usefixtures("evaluated")
def test_search_goes_on_wherever_its_journals_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two lines, or within one by a power cut."""
    monkeypatch.setattr(search_module, "plot_front", lambda *_: None)
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    wanted = outcome(SEARCH(net, ctx))
    (stage,) = tmp_path.glob("search-*")
    for journal in (stage / "hybrids.jsonl", stage / "judged.jsonl"):
        whole = journal.read_bytes()
        ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
        for cut in (0, *ends, ends[0] - 1, ends[1] - 9, ends[-1] - 2):
            journal.write_bytes(whole[:cut])
            assert outcome(SEARCH(net, ctx)) == wanted, f"{journal.name} cut to {cut} bytes"


@pytest.mark.usefixtures("evaluated")
def test_full_disk_is_said_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    append, lines = stages.append_line, []

    def full(path: Path, line: str) -> None:
        lines.append(line)
        if len(lines) < 5:
            return append(path, line)
        with storage_errors(path), path.open("ab") as stream:
            stream.write(b'{"aim": nul')  # what still fitted
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(stages, "append_line", full)
        with pytest.raises(StorageError, match="the disk is full"):
            SEARCH(net, ctx)
    assert outcome(SEARCH(net, ctx)) == outcome(SEARCH(net))


def test_other_latencies_ask_anew_but_evaluate_nothing_twice(
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
    names = searched(evaluated)
    assert len(set(names)) == len(names)


def test_finished_search_is_read_back(tmp_path: Path, evaluated: list[dict[str, str]]) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    first = SEARCH(net, ctx)
    count = len(evaluated)
    again = SEARCH(net, ctx)
    assert len(evaluated) == count
    assert outcome(first) == outcome(again)
    replace(SEARCH, images=2)(net, ctx)
    assert len(evaluated) > count  # another question, another answer


def test_other_limits_go_on_from_what_is_known(
    tmp_path: Path, evaluated: list[dict[str, str]]
) -> None:
    net, ctx = distilled(), Context(WorkDir(tmp_path))
    few = replace(SEARCH, trials=4)
    few(net, ctx)
    before = len(searched(evaluated))
    limited = replace(few, min_speedup=2.2)
    result = limited(net, ctx)
    assert result.decisions == dict.fromkeys(NAMES, "toy")
    assert before <= len(searched(evaluated)) <= before + AIMED
    count = len(evaluated)
    assert outcome(limited(net, ctx)) == outcome(result)
    assert len(evaluated) == count


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
    careful = replace(SEARCH, max_drop=0.7)(net)
    psnr = careful.metrics["search"]["chosen"][1]
    assert psnr >= 30 - 0.7
    assert careful.decisions == dict.fromkeys(NAMES, "toy@attention")
    fast = replace(SEARCH, min_speedup=2.2)(net)
    assert fast.decisions == dict.fromkeys(NAMES, "toy")
    teacher, _ = fast.metrics["search"]["teacher"]
    assert replace(SEARCH, max_cost=teacher / 2.2)(net).decisions == fast.decisions


@pytest.mark.usefixtures("evaluated")
def test_forced_blocks() -> None:
    net = distilled()
    result = replace(SEARCH, keep=("blocks.0",), replace={"blocks.1": "toy"})(net)
    assert result.decisions == {"blocks.0": KEEP, "blocks.1": "toy"}
    kept = replace(SEARCH, keep=("blocks.0",))(net)
    assert all(point.decisions["blocks.0"] == KEEP for point in kept.front)
    assert len(kept.front) > 1
    with pytest.raises(UsageError, match=r"no block named 'blocks\.7'"):
        replace(SEARCH, keep=("blocks.7",))(net)
    with pytest.raises(UsageError, match="no surrogate 'mamba'"):
        replace(SEARCH, replace={"blocks.0": "mamba"})(net)
    with pytest.raises(UsageError, match="to be kept and to be replaced"):
        replace(SEARCH, keep=("blocks.0",), replace={"blocks.0": "toy"})(net)


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


def test_blocks_without_candidates_stay(evaluated: list[dict[str, str]]) -> None:
    net = distilled()
    net = net.with_(candidates={"blocks.0": net.candidates["blocks.0"]})
    SEARCH(net)
    assert {each["blocks.1"] for each in evaluated} == {KEEP}


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
