"""ENS: search which blocks to replace, and by what."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import UsageError
from distillc.frontend.cost import count_cost
from distillc.network import KEEP, Network, SearchPoint
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.pareto import choose_point, pareto_set
from distillc.passes.plot_front import OBJECTIVES, plot_front
from distillc.passes.profile_blocks import ProfileBlocks
from distillc.passes.training import mean_psnr
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.workdir import storage_errors, weights_digest, write_json

POPULATION = 24

LOCK_SECONDS = 3
"""How long a killed search's lock on the journal is waited for."""

Decisions = Mapping[str, str]


@dataclass
class SearchReplacements(Pass):
    """Choose for every block whether it stays or which surrogate stands in for it.

    Efficient Network Search (arXiv 2605.02794) as far as its abstract tells: a multi-objective
    search for the best restoration at the least cost. Ours:

    1. NSGA-II (Deb et al. 2002; Optuna's) over one choice per block, each choice "keep" or a
       candidate. Objectives: mean PSNR on held-out images, and a cost.
    2. The first trials are fixed: nothing replaced, everything replaced by its most faithful
       candidate, each block alone, and the greedy path that replaces blocks in the order of
       fidelity lost for cost saved.
    3. Decisions seen before are not evaluated again.
    4. Trials are kept in a journal; the same command goes on after a crash.
    5. The Pareto set goes to `front.json` and `front.png`; limits or the knee choose from it.

    Given:   candidates {"latent.0": (conv, scan1)}, distilled
    Result:  front = (SearchPoint(psnr=30.2, cost=21.3), ...), decisions {"latent.0": "scan1"}

    Args:
        data: Folder of images or pairs; scikit-image's photographs by default.
        task: How clean images are degraded.
        objective: `"latency"` (measured by `ProfileBlocks`), `"macs"`, or `"transformers"`, the
            number of blocks kept, which is the paper's.
        trials: Hybrids evaluated.
        images: Held-out images each is evaluated on.
        crop: Their edge, pixels.
        max_drop: Largest PSNR loss against the teacher, dB.
        min_speedup: Smallest teacher cost / hybrid cost.

    Raises:
        UsageError: Unknown objective.
        QualityError: No point meets the limits.
        StorageError: The journal cannot be written; what it holds is kept.
    """

    data: Path | None = None
    task: str = "denoise:sigma=25"
    objective: str = "latency"
    trials: int = 100
    images: int = 4
    crop: int = 128
    max_drop: float | None = None
    min_speedup: float | None = None

    after = (DistillBlocks, ProfileBlocks)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UsageError(
                f"unknown objective {self.objective!r}", hint=f"known: {', '.join(OBJECTIVES)}"
            )

    def requires(self, net: Network) -> None:
        require(bool(net.candidates), "the network has no candidates", "SynthesizeSurrogates")
        distilled = all(
            each.fidelity is not None for found in net.candidates.values() for each in found
        )
        require(distilled, "the candidates are not distilled", "DistillBlocks")
        if self.objective == "latency":
            timed = all(net.block(name).latency_ms is not None for name in net.candidates)
            require(timed, "the blocks are not timed", "ProfileBlocks")
        check_scale(parse_task(self.task), net.scale)

    def run(self, net: Network, ctx: Context) -> PassResult:
        data = open_data(self.data, self.task, net.in_channels)
        stage = ctx.work.stage("search", self._key(net, data, ctx)) if ctx.work else None
        cost = cost_function(net, self.objective)
        teacher_choice = dict.fromkeys((block.name for block in net.blocks), KEEP)
        with storage_errors(stage) if stage else nullcontext():
            points = self._search(net, data, cost, stage, ctx)
        teacher = next(point for point in points if point.decisions == teacher_choice)
        front = pareto_set(points)
        search: dict[str, Any] = {
            "objective": self.objective,
            "points": [[point.cost, point.psnr] for point in points],
            "front": [[point.cost, point.psnr] for point in front],
            "teacher": [teacher.cost, teacher.psnr],
        }
        self._write(stage, search, front)
        chosen = choose_point(front, teacher, self.max_drop, self.min_speedup)
        search["chosen"] = [chosen.cost, chosen.psnr]
        self._write(stage, search, front)
        replaced = sum(label != KEEP for label in chosen.decisions.values())
        note = (
            f"{len(points)} hybrids evaluated, {len(front)} on the front; chosen: {replaced} of "
            f"{len(net.blocks)} blocks replaced, {teacher.psnr - chosen.psnr:.3f} dB lost, cost "
            f"{chosen.cost:.4g} of {teacher.cost:.4g}"
        )
        changed = net.with_(
            front=front,
            decisions=dict(chosen.decisions),
            healed=None,
            metrics={**net.metrics, "search": search},
        )
        return PassResult(changed, True, (note,))

    def _write(
        self, stage: Path | None, search: Mapping[str, Any], front: tuple[SearchPoint, ...]
    ) -> None:
        """Write front.json and front.png; once before choosing, which may fail."""
        if stage:
            decisions = [dict(point.decisions) for point in front]
            write_json(stage / "front.json", {**search, "decisions": decisions})
            plot_front(stage / "front.png", search)

    def _key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        timed = self.objective == "latency"
        return {
            "teacher": weights_digest(net.module),
            "size": net.size,
            "candidates": [
                [each.block, each.label, weights_digest(each.module)]
                + ([each.latency_ms] if timed else [])
                for found in net.candidates.values()
                for each in found
            ],
            "data": data.fingerprint,
            "options": [self.objective, self.trials, self.images, self.crop],
            "seed": ctx.seed,
        } | (
            {
                "blocks": [[block.name, block.latency_ms] for block in net.blocks],
                "rest_ms": net.metrics["profile"]["rest_ms"],
            }
            if timed
            else {}
        )

    def _search(
        self,
        net: Network,
        data: RestorationData,
        cost: Callable[[Decisions], float],
        stage: Path | None,
        ctx: Context,
    ) -> list[SearchPoint]:
        """Run the trials that are missing and return every distinct point, in order."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            study_name="ens",
            storage=_open_journal(stage / "journal.log") if stage else None,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        seen: dict[str, SearchPoint] = {}
        finished = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
        for trial in finished:
            psnr, spent = trial.values
            point = SearchPoint(json.loads(trial.user_attrs["decisions"]), psnr, spent)
            seen.setdefault(_name(point.decisions), point)
        fixed = first_trials(net, cost)
        evaluate = Evaluator(net, data, self.images, self.crop, ctx.device)
        with ctx.task("search", self.trials) as shown:
            for number in range(len(finished), self.trials):
                # Seeded anew, so that a killed search goes on to the same result.
                study.sampler = optuna.samplers.NSGAIISampler(
                    population_size=POPULATION, seed=(ctx.seed * 100_003 + number) % 2**32
                )
                # A kill between queueing a trial and starting it leaves it queued.
                waiting = study.get_trials(False, (optuna.trial.TrialState.WAITING,))
                if number < len(fixed) and not waiting:
                    study.enqueue_trial(fixed[number])
                trial = study.ask()
                decisions = {
                    block.name: trial.suggest_categorical(block.name, _choices(net, block.name))
                    for block in net.blocks
                }
                name = _name(decisions)
                if name not in seen:
                    seen[name] = SearchPoint(decisions, evaluate(decisions), cost(decisions))
                trial.set_user_attr("decisions", json.dumps(decisions))
                study.tell(trial, (seen[name].psnr, seen[name].cost))
                shown.update(number + 1, f"{len(pareto_set(seen.values()))} on the front")
        return list(seen.values())


def _open_journal(path: Path) -> JournalStorage:
    """Open a search's journal, or begin one.

    A full disk or a power cut can tear its last line; Optuna appends to what is there and then
    cannot read the journal ever again, so the torn line is cut off first.
    """
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
    return JournalStorage(JournalFileBackend(str(path), lock))


def _name(decisions: Decisions) -> str:
    return json.dumps(dict(decisions), sort_keys=True)


def _choices(net: Network, block: str) -> list[str]:
    return [KEEP, *(each.label for each in net.candidates.get(block, ()))]


class Evaluator:
    """PSNR of hybrids on fixed images, with one working copy whose modules are swapped."""

    def __init__(
        self, net: Network, data: RestorationData, images: int, crop: int, device: str
    ) -> None:
        self._net = net
        self._device = device
        self._pairs = data.held_out(images, crop)
        self._module = copy.deepcopy(net.module).to(device)

    def __call__(self, decisions: Decisions) -> float:
        """Return the mean PSNR of the hybrid that these decisions describe, dB."""
        originals = {}
        for name, label in decisions.items():
            if label == KEEP:
                continue
            surrogate = self._net.surrogate(name, label)
            attention = self._net.block(name).attention
            path = name if surrogate.scope == "block" else attention
            originals[path] = self._module.get_submodule(path)
            self._module.set_submodule(path, surrogate.module.to(self._device))
        try:
            return mean_psnr(self._module, self._pairs, self._device)
        finally:
            for path, module in originals.items():
                self._module.set_submodule(path, module)


def cost_function(net: Network, objective: str) -> Callable[[Decisions], float]:
    """Return the cost of decisions: of the whole network, in the objective's unit.

    For latency, what is not in any block counts too (`ProfileBlocks` measured the network).
    """
    price: dict[tuple[str, str], float] = {}
    for block in net.blocks:
        kept = {
            "transformers": 1.0,
            "macs": block.cost.macs / 1e9,
            "latency": block.latency_ms or 0.0,
        }[objective]
        price[block.name, KEEP] = kept
        for each in net.candidates.get(block.name, ()):
            price[block.name, each.label] = {
                "transformers": 0.0,
                "macs": _macs_after(block.cost.macs, block.attention_cost.macs, each) / 1e9,
                "latency": each.latency_ms or 0.0,
            }[objective]
    rest = {
        "transformers": lambda: 0.0,
        "macs": lambda: (
            (
                count_cost(net.module, net.input_shape).macs
                - sum(block.cost.macs for block in net.blocks)
            )
            / 1e9
        ),
        "latency": lambda: net.metrics["profile"]["rest_ms"],
    }[objective]()
    # Kept far from zero, so that a ratio of costs means something when nothing is left.
    floor = 1e-6

    def cost(decisions: Decisions) -> float:
        return max(floor, rest + sum(price[name, label] for name, label in decisions.items()))

    return cost


def _macs_after(block: int, attention: int, surrogate: Any) -> int:
    replaced = block if surrogate.scope == "block" else attention
    return block - replaced + int(surrogate.cost.macs)


def first_trials(net: Network, cost: Callable[[Decisions], float]) -> list[dict[str, str]]:
    """Return the decisions that are evaluated first (rule 2), without repetition."""
    keep = dict.fromkeys((block.name for block in net.blocks), KEEP)
    best = {
        name: min(found, key=lambda each: each.fidelity or 0.0)
        for name, found in net.candidates.items()
    }
    everything = keep | {name: each.label for name, each in best.items()}
    alone = [keep | {name: each.label} for name, each in best.items()]

    def loss_per_saving(name: str) -> float:
        saved = cost(keep) - cost(keep | {name: best[name].label})
        return (best[name].fidelity or 0.0) / saved if saved > 0 else float("inf")

    path, greedy = dict(keep), []
    for name in sorted(best, key=loss_per_saving):
        path[name] = best[name].label
        greedy.append(dict(path))
    unique = {_name(each): each for each in (keep, everything, *greedy, *alone)}
    return list(unique.values())
