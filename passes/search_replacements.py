"""Choose which blocks to replace: the search."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distillc.checks import EDGES, NOT_NEGATIVE, POSITIVE, RUNS, check_real, check_whole
from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import PassError, QualityError, UsageError
from distillc.frontend.structure import module_digest
from distillc.network import KEEP, Network, SearchPoint
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids
from distillc.passes.plot_front import plot_front
from distillc.passes.profile_blocks import ProfileBlocks
from distillc.passes.students import candidate_digests
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.search.evaluator import Evaluator
from distillc.search.pareto import choose_point, pareto_set
from distillc.search.proposals import first_choices, propose
from distillc.search.space import OBJECTIVES, Choice, Space, check_forced, search_space
from distillc.stages import Journal, Stage
from distillc.workdir import write_json

SURVIVORS = 4
"""How many times as many images the front is judged by at last."""

MARGIN = 0.02
"""How far a sum of costs may be from the latency of the whole (docs/measurements/results.md)."""

BROKEN = -math.inf
"""PSNR of a hybrid whose output is not finite, dB; it is on no front."""

AIMED = 12
"""Hybrids evaluated for limits and forced blocks, after those that serve every question."""


@dataclass
class SearchReplacements(Pass):
    """Choose for every block whether it stays or which surrogate stands in for it.

    Efficient Network Search (arXiv 2605.02794) as far as its abstract tells: a multi-objective
    search for the best restoration at the least cost. Ours learns what blocks lose:

    1. The first hybrids are fixed: nothing replaced, everything replaced by its most faithful
       candidate, and each block by itself.
    2. A linear model of the loss in dB is fitted to all that were evaluated
       (`distillc.search.predictor`), and the exact front that it predicts says which hybrid to
       evaluate next (`distillc.search.proposals`).
    3. What is evaluated is kept in a journal, which other limits, other forced blocks and more
       trials go on from.
    4. The Pareto set is judged again, by `SURVIVORS` times as many images.
    5. It goes to `front.json` and `front.png`; limits or the knee choose from it.

    Given:   candidates {"latent.0": (conv, mamba)}, distilled
    Result:  front = (SearchPoint(psnr=30.2, cost=21.3), ...), decisions {"latent.0": "mamba"}

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
        max_cost: Largest cost, in the objective's unit.
        keep: Blocks that stay.
        replace: Block -> the label of the surrogate that replaces it.
        drop_option: What messages call `max_drop`.

    Raises:
        UsageError: Unknown objective, block or surrogate, a number out of range, or a block that is
            to stay and to be replaced.
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
    max_cost: float | None = None
    keep: tuple[str, ...] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    drop_option: str = "--max-drop"

    after = (DistillBlocks, DistillHybrids, ProfileBlocks)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UsageError(
                f"unknown objective {self.objective!r}", hint=f"known: {', '.join(OBJECTIVES)}"
            )

        check_whole(RUNS, trials=self.trials, images=self.images)
        check_whole(EDGES, crop=self.crop)
        check_real(NOT_NEGATIVE, max_drop=self.max_drop)
        check_real(POSITIVE, min_speedup=self.min_speedup, max_cost=self.max_cost)

    def foresee(self, net: Network) -> None:
        check_forced(net, self.keep, self.replace)

    def requires(self, net: Network) -> None:
        require(bool(net.candidates), "the network has no candidates", "SynthesizeSurrogates")
        distilled = all(
            each.fidelity is not None for found in net.candidates.values() for each in found
        )
        require(distilled, "the candidates are not distilled", "DistillBlocks")
        if self.objective == "latency":
            timed = all(net.block(name).latency_ms is not None for name in net.candidates)
            require(timed, "the blocks are not timed", "ProfileBlocks")
        check_scale(parse_task(self.task), net.scale, *net.channels)

    def run(self, net: Network, ctx: Context) -> PassResult:
        data = open_data(self.data, self.task, *net.channels)
        space = search_space(net, self.objective, self.keep, self.replace)
        with ctx.stage("search", self._key(net, data, ctx)) as stage:
            found = self._search(net, space, data, stage, ctx)
            values = self._judge(net, space, data, found, stage, ctx)
            points = _points(space, values)
            teacher = next(each for each in points if space.choice(each.decisions) == space.keep)
            allowed = [each for each in points if space.allows(space.choice(each.decisions))]
            if not allowed:
                raise QualityError(
                    "no hybrid with these blocks gives finite numbers",
                    where=", ".join(self.replace),
                    hint="replace other blocks, or by other surrogates",
                )
            front = pareto_set(allowed)
            search: dict[str, Any] = {
                "objective": self.objective,
                "points": [[point.cost, point.psnr] for point in points],
                "front": [[point.cost, point.psnr] for point in front],
                "teacher": [teacher.cost, teacher.psnr],
            }
            self._write(stage, search, front)
            limits = (self.max_drop, self._cost_limit(teacher.cost), self.drop_option)
            chosen = choose_point(front, teacher, *limits)
            search["chosen"] = [chosen.cost, chosen.psnr]
            self._write(stage, search, front)
        replaced = sum(label != KEEP for label in chosen.decisions.values())
        note = (
            f"{len(points)} hybrids evaluated, {len(front)} on the front; chosen: {replaced} of "
            f"{len(net.blocks)} blocks replaced, {teacher.psnr - chosen.psnr:.3f} dB lost, cost "
            f"{chosen.cost:.4g} of {teacher.cost:.4g}"
        )
        notes = [note]
        if broken := len(values) - len(points):
            notes.append(f"{broken} hybrids left out: their output is not finite")
        changed = net.with_(
            front=front,
            decisions=dict(chosen.decisions),
            healed=None,
            metrics={**net.metrics, "search": search},
        )
        return PassResult(changed, True, tuple(notes))

    def _write(
        self, stage: Stage, search: Mapping[str, Any], front: tuple[SearchPoint, ...]
    ) -> None:
        """Write front.json and front.png; once before choosing, which may fail."""
        data, plot = stage.path("front.json"), stage.path("front.png")
        if data and plot:
            decisions = [dict(point.decisions) for point in front]
            write_json(data, {**search, "decisions": decisions})
            plot_front(plot, search)

    def _key(self, net: Network, data: RestorationData, ctx: Context) -> dict[str, Any]:
        """Return what PSNRs depend on: neither limits nor costs."""
        return {
            "teacher": module_digest(net.module),
            "candidates": candidate_digests(net),
            "data": data.fingerprint,
            "options": [self.images, self.crop],
            "seed": ctx.seed,
        }

    def _cost_limit(self, teacher: float) -> float | None:
        limits = [self.max_cost, teacher / self.min_speedup if self.min_speedup else None]
        share = 1 - MARGIN if self.objective == "latency" else 1
        return min((limit * share for limit in limits if limit is not None), default=None)

    def _search(
        self, net: Network, space: Space, data: RestorationData, stage: Stage, ctx: Context
    ) -> dict[Choice, float]:
        """Evaluate what is missing; return the PSNR of every hybrid, in order, in dB."""
        journal = stage.journal("hybrids.jsonl", partial(_check, space))
        known = _known(space, journal)
        evaluate = Evaluator(net, data.held_out(self.images, self.crop), ctx.train_on)
        whole = search_space(net, self.objective)
        fixed = first_choices(whole)
        limits = (self.max_drop, self._cost_limit(space.cost(space.keep)))
        aim = json.loads(json.dumps([*limits, self.keep, self.replace]))
        rounds = [(None, self.trials)]
        if aim != [None, None, [], {}]:
            rounds.append((aim, AIMED))
        found: dict[Choice, float] = {}
        with ctx.progress_line("search", sum(count for _, count in rounds)) as shown:
            for aim, count in rounds:
                told = {
                    each["number"]: space.choice(each["decisions"])
                    for each in journal.entries
                    if each["aim"] == aim
                }
                for number in range(count):
                    if number in told:
                        found[told[number]] = known[told[number]]
                        shown.update(len(found), "remembered")
                        continue
                    choice: Choice | None
                    if aim is None and number < len(fixed):
                        choice = fixed[number]
                    else:
                        random = np.random.default_rng([ctx.seed, number, len(found)])
                        losses = _losses(space, found)
                        asked = (space, losses, random, *limits) if aim else (whole, losses, random)
                        choice = propose(*asked)
                    if choice is None:
                        break
                    if choice not in known:
                        known[choice] = _measure(evaluate, space, choice)
                    found[choice] = known[choice]
                    journal.append({"aim": aim, "number": number, **_entry(space, choice, known)})
                    shown.update(len(found), f"{len(_front(space, found))} on the front")
        return found

    def _judge(
        self,
        net: Network,
        space: Space,
        data: RestorationData,
        found: Mapping[Choice, float],
        stage: Stage,
        ctx: Context,
    ) -> dict[Choice, float]:
        """Evaluate the front on more images; the others keep their distance from the teacher."""
        journal = stage.journal("judged.jsonl", partial(_check, space))
        judged = _known(space, journal)
        evaluate = Evaluator(net, data.held_out(SURVIVORS * self.images, self.crop), ctx.train_on)
        allowed = {each: psnr for each, psnr in found.items() if space.allows(each)}
        survivors = list(dict.fromkeys([space.keep, *_front(space, allowed)]))
        with ctx.progress_line("judge the front", len(survivors)) as shown:
            for number, choice in enumerate(survivors):
                if choice not in judged:
                    judged[choice] = _measure(evaluate, space, choice)
                    journal.append(_entry(space, choice, judged))
                shown.update(number + 1)
        shift = judged[space.keep] - found[space.keep]
        return {
            choice: judged[choice] if choice in survivors else psnr + shift
            for choice, psnr in found.items()
        }


def _measure(evaluate: Evaluator, space: Space, choice: Choice) -> float:
    """Return the PSNR of a hybrid, `BROKEN` where its output is not finite.

    Raises:
        PassError: The network itself is broken.
    """
    psnr = evaluate(space.decisions(choice))
    if math.isfinite(psnr):
        return psnr
    if choice == space.keep:
        raise PassError(
            "the network's output is not finite",
            where="on the images of the search",
            hint="check the checkpoint, and that --task is what it was trained for",
        )
    return BROKEN


def _losses(space: Space, found: Mapping[Choice, float]) -> dict[Choice, float]:
    """Return what each hybrid loses, dB; one that is broken loses all there is."""
    return {each: found[space.keep] - max(psnr, 0.0) for each, psnr in found.items()}


def _entry(space: Space, choice: Choice, known: Mapping[Choice, float]) -> dict[str, Any]:
    """Return a line of a journal; JSON has no infinity."""
    psnr = known[choice]
    return {"decisions": space.decisions(choice), "psnr": None if psnr == BROKEN else psnr}


def _check(space: Space, entry: Mapping[str, Any]) -> None:
    """Raise where a line of a journal is not what `_entry` returns."""
    space.choice(entry["decisions"])
    if entry["psnr"] is not None and not math.isfinite(entry["psnr"]):
        raise ValueError("not a PSNR")


def _known(space: Space, journal: Journal) -> dict[Choice, float]:
    """Return the PSNR of every hybrid in a journal."""
    return {
        space.choice(each["decisions"]): BROKEN if each["psnr"] is None else each["psnr"]
        for each in journal.entries
    }


def _points(space: Space, values: Mapping[Choice, float]) -> list[SearchPoint]:
    """Return the hybrids that are not broken, with their costs."""
    return [
        SearchPoint(space.decisions(choice), psnr, space.cost(choice))
        for choice, psnr in values.items()
        if psnr != BROKEN
    ]


def _front(space: Space, found: Mapping[Choice, float]) -> list[Choice]:
    """Return the hybrids that no other beats in both PSNR and cost."""
    return [space.choice(point.decisions) for point in pareto_set(_points(space, found))]
