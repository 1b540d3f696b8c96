"""Choose which blocks to replace: the search."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import UsageError
from distillc.network import KEEP, Network, SearchPoint
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids
from distillc.passes.plot_front import plot_front
from distillc.passes.profile_blocks import ProfileBlocks
from distillc.passes.pupils import candidate_digests
from distillc.pipeline import Context, Pass, PassResult, require
from distillc.search.evaluator import Evaluator
from distillc.search.pareto import choose_point, pareto_set
from distillc.search.proposals import first_choices, propose
from distillc.search.space import OBJECTIVES, Choice, Space, search_space
from distillc.workdir import append_line, storage_errors, weights_digest, write_json

SURVIVORS = 4
"""How many times as many images the front is judged by at last."""

MARGIN = 0.02
"""How far a sum of prices may be from the latency of the whole (docs/results.md)."""

AIMED = 12
"""Hybrids evaluated for limits and forced blocks, after those that serve every question."""


@dataclass
class SearchReplacements(Pass):
    """Choose for every block whether it stays or which surrogate stands in for it.

    Efficient Network Search (arXiv 2605.02794) as far as its abstract tells: a multi-objective
    search for the best restoration at the least cost. Ours learns what blocks lose:

    1. The first hybrids are fixed: nothing replaced, everything replaced by its most faithful
       candidate, and each block alone.
    2. A linear model of the loss in dB is fitted to all that were evaluated
       (`distillc.search.predictor`), and the exact front that it predicts says which hybrid to
       evaluate next (`distillc.search.proposals`).
    3. What is evaluated is kept in a journal, which other limits, other forced blocks and more
       trials go on from.
    4. The Pareto set is judged again, by `SURVIVORS` times as many images.
    5. It goes to `front.json` and `front.png`; limits or the knee choose from it.

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
        max_cost: Largest cost, in the objective's unit.
        keep: Blocks that stay.
        replace: Block -> the label of the surrogate that replaces it.
        drop_option: What messages call `max_drop`.

    Raises:
        UsageError: Unknown objective, or a block is to stay and to be replaced.
        PassError: Unknown block or surrogate.
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
        space = search_space(net, self.objective, self.keep, self.replace)
        stage = ctx.work.stage("search", self._key(net, data, ctx)) if ctx.work else None
        with storage_errors(stage) if stage else nullcontext():
            found = self._search(net, space, data, stage, ctx)
            points = self._judge(net, space, data, found, stage, ctx)
        teacher = next(each for each in points if space.choice(each.decisions) == space.keep)
        front = pareto_set(each for each in points if space.allows(space.choice(each.decisions)))
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
        """Return what PSNRs depend on: neither limits nor costs."""
        return {
            "teacher": weights_digest(net.module),
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
        self,
        net: Network,
        space: Space,
        data: RestorationData,
        stage: Path | None,
        ctx: Context,
    ) -> dict[Choice, float]:
        """Evaluate what is missing; return the PSNR of every hybrid, in order, in dB."""
        journal = stage / "hybrids.jsonl" if stage else None
        entries = _read(journal) if journal else []
        known = {space.choice(each["decisions"]): each["psnr"] for each in entries}
        evaluate = Evaluator(net, data.held_out(self.images, self.crop), ctx.device)
        whole = search_space(net, self.objective)
        fixed = first_choices(whole)
        limits = (self.max_drop, self._cost_limit(space.cost(space.keep)))
        aim = json.loads(json.dumps([*limits, self.keep, self.replace]))
        rounds = [(None, self.trials)]
        if aim != [None, None, [], {}]:
            rounds.append((aim, AIMED))
        found: dict[Choice, float] = {}
        with ctx.task("search", sum(count for _, count in rounds)) as shown:
            for aim, count in rounds:
                done = [each for each in entries if each["aim"] == aim][:count]
                found |= {space.choice(each["decisions"]): each["psnr"] for each in done}
                if done:
                    shown.update(len(found), "remembered")
                for number in range(len(done), count):
                    choice: Choice | None
                    if aim is None and number < len(fixed):
                        choice = fixed[number]
                    else:
                        losses = {each: found[space.keep] - psnr for each, psnr in found.items()}
                        random = np.random.default_rng([ctx.seed, number, len(losses)])
                        asked = (space, losses, random, *limits) if aim else (whole, losses, random)
                        choice = propose(*asked)
                    if choice is None:
                        break
                    if choice not in known:
                        known[choice] = evaluate(space.decisions(choice))
                    found[choice] = known[choice]
                    entry = {"aim": aim, "decisions": space.decisions(choice)}
                    if journal:
                        append_line(journal, json.dumps({**entry, "psnr": found[choice]}))
                    shown.update(len(found), f"{len(_front(space, found))} on the front")
        return found

    def _judge(
        self,
        net: Network,
        space: Space,
        data: RestorationData,
        found: Mapping[Choice, float],
        stage: Path | None,
        ctx: Context,
    ) -> list[SearchPoint]:
        """Evaluate the front on more images; the others keep their distance from the teacher."""
        kept = stage / "judged.jsonl" if stage else None
        judged = {
            space.choice(each["decisions"]): each["psnr"] for each in (_read(kept) if kept else ())
        }
        evaluate = Evaluator(net, data.held_out(SURVIVORS * self.images, self.crop), ctx.device)
        allowed = {each: psnr for each, psnr in found.items() if space.allows(each)}
        survivors = list(dict.fromkeys([space.keep, *_front(space, allowed)]))
        with ctx.task("judge the front", len(survivors)) as shown:
            for number, choice in enumerate(survivors):
                if choice not in judged:
                    decisions = space.decisions(choice)
                    judged[choice] = evaluate(decisions)
                    if kept:
                        line = {"decisions": decisions, "psnr": judged[choice]}
                        append_line(kept, json.dumps(line))
                shown.update(number + 1)
        shift = judged[space.keep] - found[space.keep]
        return [
            SearchPoint(
                space.decisions(choice),
                judged[choice] if choice in survivors else psnr + shift,
                space.cost(choice),
            )
            for choice, psnr in found.items()
        ]


def _front(space: Space, found: Mapping[Choice, float]) -> list[Choice]:
    """Return the hybrids that no other beats in both PSNR and cost."""
    points = [SearchPoint(space.decisions(c), psnr, space.cost(c)) for c, psnr in found.items()]
    return [space.choice(point.decisions) for point in pareto_set(points)]


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; one that a crash cut short is left out."""
    entries = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries
