"""The search against simple ones, with equally many evaluations of the same real surrogates.

    python -m tests.benchmarks.search CKPT --work-dir DIR --data BSDS500 --json out.json

DIR is the work directory of a conversion of CKPT with the same `--budget`, `--data` and `--task`:
its surrogates and block costs are read back. Hypervolume is the area between the measured front
and the worst corner (cost of the teacher, loss of everything replaced), in per cent of the
rectangle down to (cost of everything replaced by its cheapest, no loss).

Baselines: hybrids at random; greedy, each surrogate of each block measured alone first, then blocks
in the order of their best surrogate's loss alone per cost saved; NSGA-II of Optuna with the same
first hybrids; the number of blocks kept in place of the cost, as the paper's objective has it, with
our search.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import optuna
import torch
from matplotlib.figure import Figure

from distillc.budgets import get_budget
from distillc.data.images import open_data
from distillc.frontend.load import load
from distillc.network import Network
from distillc.pipeline import Context, Pipeline
from distillc.search.evaluator import Evaluator
from distillc.search.proposals import first_choices, hypervolume, propose
from distillc.search.space import Choice, Space, search_space
from distillc.stages import WorkDir
from distillc.standard_passes import conversion_passes
from tests.benchmarks.report import markdown

Measure = Callable[[Choice], float]
"""The loss of a hybrid, dB."""


class Budget(Exception):
    """All evaluations are spent."""


class Counter:
    """Counts the distinct hybrids that one search evaluates."""

    def __init__(self, space: Space, measure: Measure, trials: int) -> None:
        self.space, self.measure, self.trials = space, measure, trials
        self.points: dict[Choice, float] = {}

    def __call__(self, choice: Choice) -> float:
        if choice not in self.points:
            if len(self.points) == self.trials:
                raise Budget
            self.points[choice] = self.measure(choice)
        return self.points[choice]


def ours(space: Space, count: Counter, seed: int, guide: Space | None = None) -> None:
    guide = guide or space
    for choice in first_choices(guide):
        count(choice)
    while True:
        random = np.random.default_rng([seed, len(count.points)])
        choice = propose(guide, count.points, random)
        if choice is None:
            return
        count(choice)


def at_random(space: Space, count: Counter, seed: int) -> None:
    random = np.random.default_rng(seed)
    count(space.keep)
    while True:
        # As many replaced blocks as chance will have it: else all hybrids have half of them.
        share = random.random()
        count(
            tuple(
                int(random.integers(1, len(options))) if random.random() < share else 0
                for options in space.options
            )
        )


def greedy(space: Space, count: Counter, seed: int) -> None:
    keep = space.keep
    count(keep)
    alone = {}
    for block, options in enumerate(space.options):
        for number in range(1, len(options)):
            choice = (*keep[:block], number, *keep[block + 1 :])
            saved = space.cost(keep) - space.cost(choice)
            loss = count(choice)
            if saved > 0:
                alone[block, number] = max(loss, 0.0) / saved
    best: dict[int, tuple[int, int]] = {}
    ordered = sorted(alone, key=alone.__getitem__)
    for each in ordered:
        best.setdefault(each[0], each)
    path = keep
    # Every block by its best surrogate first, then by the others, while evaluations last.
    for block, number in dict.fromkeys([*best.values(), *ordered]):
        path = (*path[:block], number, *path[block + 1 :])
        count(path)


def nsga2(space: Space, count: Counter, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        directions=["minimize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
    )
    for choice in first_choices(space):
        study.enqueue_trial(dict(zip(space.blocks, choice, strict=True)))
    for _ in range(20 * count.trials):
        trial = study.ask()
        choice = tuple(
            trial.suggest_categorical(block, list(range(len(options))))
            for block, options in zip(space.blocks, space.options, strict=True)
        )
        study.tell(trial, (count(choice), space.cost(choice)))


def curve(space: Space, points: dict[Choice, float], box: tuple[float, ...]) -> list[float]:
    """Return the hypervolume after each evaluation, per cent."""
    least, most, worst = box
    area = (most - least) * worst
    reached, volumes = [], []
    for choice, loss in points.items():
        reached.append((space.cost(choice), loss))
        volumes.append(100 * hypervolume(reached, (most, worst)) / area)
    return volumes


def plot(path: Path, curves: dict[str, list[list[float]]]) -> None:
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, runs in curves.items():
        length = max(map(len, runs))
        filled = np.array([run + run[-1:] * (length - len(run)) for run in runs])
        (line,) = axes.plot(range(1, length + 1), filled.mean(0), label=name)
        axes.fill_between(
            range(1, length + 1), filled.min(0), filled.max(0), alpha=0.2, color=line.get_color()
        )
    axes.set_xlabel("hybrids evaluated")
    axes.set_ylabel("hypervolume, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--task", default="denoise:sigma=25")
    parser.add_argument("--budget", default="full")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()

    passes = conversion_passes(get_budget(given.budget), given.data, given.task)
    pipeline = Pipeline(passes, stop_after="profile_blocks")
    net = pipeline.run(load(given.checkpoint).at((256, 256)), Context(WorkDir(given.work_dir)))
    space, transformers = (search_space(net, each) for each in ("latency", "transformers"))
    measure = measured(net, space, given)
    cheapest = tuple(
        min(range(len(options)), key=lambda n: options[n].cost) for options in space.options
    )
    everything = first_choices(space)[1]
    worst = max(measure(everything), measure(cheapest))
    box = (space.cost(cheapest), space.cost(space.keep), worst)
    methods: dict[str, Callable[[Space, Counter, int], None]] = {
        "ours": ours,
        "ours, blocks kept as cost": lambda s, c, seed: ours(s, c, seed, transformers),
        "NSGA-II": nsga2,
        "greedy": greedy,
        "random": at_random,
    }
    curves: dict[str, list[list[float]]] = {}
    for name, method in methods.items():
        for seed in range(given.seeds):
            count = Counter(space, measure, given.trials)
            with suppress(Budget):
                method(space, count, seed)
            curves.setdefault(name, []).append(curve(space, count.points, box))
            print(name, seed, f"{curves[name][-1][-1]:.2f}", file=sys.stderr, flush=True)
    steps = [step for step in (25, 50, 75, 100, 150, 200) if step <= given.trials]
    rows = [
        {"search": name}
        | {f"{step}": summary([run[min(step, len(run)) - 1] for run in runs]) for step in steps}
        for name, runs in curves.items()
    ]
    print(markdown({"search": "search"} | {f"after {s}": f"{s}" for s in steps}, rows))
    if given.json:
        given.json.write_text(json.dumps({"box": box, "curves": curves}) + "\n")
    if given.plot:
        plot(given.plot, curves)


def summary(values: list[float]) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{fmean(values):.2f} ± {spread:.2f}"


def measured(net: Network, space: Space, given: argparse.Namespace) -> Measure:
    """Return a function that evaluates a hybrid once and keeps the result beside the surrogates."""
    data = open_data(given.data, given.task, net.in_channels)
    evaluate = Evaluator(net, data.held_out(given.images, given.crop))
    store = given.work_dir / f"benchmark-{given.images}-{given.crop}.jsonl"
    known = {}
    for line in store.read_text().splitlines() if store.exists() else ():
        choice, psnr = json.loads(line)
        known[tuple(choice)] = psnr

    def psnr(choice: Choice) -> float:
        if choice not in known:
            known[choice] = evaluate(space.decisions(choice))
            with store.open("a") as stream:
                stream.write(json.dumps([choice, known[choice]]) + "\n")
        return known[choice]

    return lambda choice: psnr(space.keep) - psnr(choice)


if __name__ == "__main__":
    with torch.no_grad():
        main()
