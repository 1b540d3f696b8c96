"""Ways to train surrogates: what each gives for equally many steps.

    python -m tests.benchmarks.recipes CKPT --data BSDS500 --work-dir results/recipes

First table, block by block (`DistillBlocks`): the mean fidelity of all surrogates, 1 is what an
idle one gets. Second table, from the surrogates of `--budget full`'s loss on: training in whole
hybrids (`DistillHybrids`). Both show the PSNR that hybrids lose before any healing: everything
replaced by one family, and the mean of eight hybrids drawn at random. A recipe that is not the
product's own patches the pass for its run. Finished recipes are kept in the work directory.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.nn import functional as F

import distillc
from distillc.data.images import open_data
from distillc.data.metrics import mean_psnr
from distillc.frontend.calls import Call, record_calls
from distillc.network import KEEP, Network
from distillc.passes import (
    DistillBlocks,
    DistillHybrids,
    FindAttention,
    SynthesizeSurrogates,
    Trace,
    distill_hybrids,
)
from distillc.passes.distill_hybrids import Hybrid
from distillc.passes.students import Student, Students
from distillc.pipeline import Context, Pipeline
from distillc.stages import WorkDir
from distillc.surrogates.families import conv, ssd
from distillc.workdir import digest, write_json
from tests.benchmarks.report import markdown

FAMILIES = ("conv", "mamba")

BlockLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(surrogate's output, teacher's output, input of both) -> loss."""


def squared(given: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (given - wanted).square().sum() / (wanted - x).square().sum()


def absolute(given: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (given - wanted).abs().sum() / (wanted - x).abs().sum()


def norm(given: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (given - wanted).norm() / (wanted - x).norm()


def of_output(given: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (given - wanted).norm() / wanted.norm()


def cosine(given: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    direction = F.cosine_similarity(given - x, wanted - x, dim=1).mean()
    return norm(given, wanted, x) + 1 - direction


def frequency(given: torch.Tensor, wanted: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    error, change = (torch.fft.rfft2(each).abs() for each in (given - wanted, wanted - x))
    return norm(given, wanted, x) + error.sum() / change.sum()


BLOCK_LOSSES: dict[str, BlockLoss] = {
    "L1": absolute,
    "squared error": squared,
    "norm over the output's norm": of_output,
    "norm + cosine": cosine,
    "norm + L1 of the spectrum": frequency,
}


@contextmanager
def block_loss(loss: BlockLoss) -> Iterator[None]:
    """Train blocks by another loss."""

    def patched(self: Student, calls: Mapping[str, Call]) -> torch.Tensor:
        call = calls[self.path]
        return loss(call.repeat(self.module), call.result, call.given)

    with mock.patch.object(Student, "loss", patched):
        yield


@contextmanager
def cold() -> Iterator[None]:
    """Let no surrogate start from the weights of its block."""
    with (
        mock.patch.object(conv, "find_branches", return_value=None),
        mock.patch.object(ssd, "find_branches", return_value=None),
        mock.patch.object(Students, "calibrate"),
    ):
        yield


@contextmanager
def output_loss(loss: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Train hybrids by another loss of (output, clean image, teacher's output)."""
    with mock.patch.object(distill_hybrids, "imitation_loss", loss):
        yield


@contextmanager
def feature_loss(weight: float, output: float) -> Iterator[None]:
    """Add the error of every replaced block, fed with what the hybrid makes before it."""
    errors: list[torch.Tensor] = []
    run = Hybrid.__call__

    def watched(self: Hybrid, chosen: list[Student], images: torch.Tensor) -> torch.Tensor:
        errors.clear()
        calls = record_calls(self._module, [each.path for each in chosen], images)

        def compare(student: Student) -> Any:
            call = calls[student.path]
            return student.module.register_forward_hook(
                lambda _module, _args, result: errors.append(
                    norm(result.float(), call.result, call.given)
                )
            )

        handles = [compare(each) for each in chosen]
        try:
            return run(self, chosen, images)
        finally:
            for handle in handles:
                handle.remove()

    def loss(given: torch.Tensor, clean: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        ends = F.l1_loss(given, clean) + F.l1_loss(given, wanted)
        return output * ends + weight * torch.stack(errors).mean()

    with mock.patch.object(Hybrid, "__call__", watched), output_loss(loss):
        yield


@contextmanager
def progressive(steps: int) -> Iterator[None]:
    """Replace few blocks at first and all at last, instead of any share at any time."""
    counter = iter(range(steps))

    def draw(self: Hybrid, source: random.Random) -> list[Student]:
        return self.pick(source, 0.8 * (1 - next(counter) / steps))

    with mock.patch.object(Hybrid, "draw", draw):
        yield


def teacher_only(given: torch.Tensor, clean: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(given, wanted)


def clean_only(given: torch.Tensor, clean: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(given, clean)


class Bench:
    """Runs recipes on one network."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.work = given, WorkDir(given.work_dir)
        front: list[Any] = [Trace(), FindAttention(), SynthesizeSurrogates(FAMILIES)]
        self.net = Pipeline(front).run(distillc.load(given.checkpoint).at((256, 256)), Context())
        self.pairs = open_data(given.data, given.task).held_out(16, 128)
        self.teacher = mean_psnr(self.net.module, self.pairs)

    def blocks(self, steps: int, net: Network | None = None, **options: Any) -> Network:
        distill = DistillBlocks(self.given.data, self.given.task, steps, **options)
        return distill(net or self.net, Context(seed=0))

    def hybrids(self, net: Network, steps: int, **options: Any) -> Network:
        together = DistillHybrids(self.given.data, self.given.task, steps, **options)
        return together(net, Context(seed=0))

    def row(self, name: str, steps: int, make: Callable[[], Network]) -> dict[str, Any]:
        """Measure a recipe, or read what was measured."""
        path = self.work.root / f"{digest([name, steps, str(self.given.data)])}.json"
        if not path.exists():
            write_json(path, {"recipe": name, "steps": steps, **self.figures(make())})
        row: dict[str, Any] = json.loads(path.read_text())
        print(row, flush=True)
        return row

    def figures(self, net: Network) -> dict[str, float]:
        found = [each for candidates in net.candidates.values() for each in candidates]
        figures = {
            f"fidelity {family}": sum(each.fidelity or 0 for each in found if each.spec == family)
            / len(net.candidates)
            for family in FAMILIES
        }
        for family in FAMILIES:
            figures[f"all {family}"] = self.loss(net, dict.fromkeys(net.candidates, family))
        source = random.Random(0)
        drawn = [
            self.loss(net, {name: source.choice((KEEP, *FAMILIES)) for name in net.candidates})
            for _ in range(8)
        ]
        return {**figures, "random": sum(drawn) / len(drawn)}

    def loss(self, net: Network, decisions: Mapping[str, str]) -> float:
        return self.teacher - mean_psnr(net.hybrid(decisions), self.pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", default="denoise:sigma=25")
    parser.add_argument("--work-dir", type=Path, default=Path("results/recipes"))
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    bench, steps = Bench(given), given.steps

    def trained(**options: Any) -> Callable[[], Network]:
        return lambda: bench.blocks(steps, **options)

    ours = "norm over the change's norm (ours)"
    blocks = [bench.row(ours, steps, trained())]
    for name, loss in BLOCK_LOSSES.items():
        with block_loss(loss):
            blocks.append(bench.row(name, steps, trained()))
    with cold():
        idle = Pipeline([SynthesizeSurrogates(FAMILIES)]).run(bench.net, Context())
    blocks.append(bench.row("ours, every surrogate starts idle", steps, trained(net=idle)))
    for more in (steps // 2, steps * 2):
        blocks.append(bench.row(ours, more, lambda more=more: bench.blocks(more)))

    start = bench.blocks(steps)
    ours = "clean + teacher, L1 (ours)"
    recipes: dict[str, Any] = {
        ours: nullcontext,
        "teacher, L1": lambda: output_loss(teacher_only),
        "clean, L1": lambda: output_loss(clean_only),
        "features of hybrids alone": lambda: feature_loss(1.0, 0.0),
        "ours + 0.1 features of hybrids": lambda: feature_loss(0.1, 1.0),
        "ours, progressive": lambda: progressive(steps),
    }
    together = [bench.row("none", 0, lambda: start)]
    for name, recipe in recipes.items():
        with recipe():
            together.append(bench.row(name, steps, lambda: bench.hybrids(start, steps)))
    together.append(bench.row(ours, 2 * steps, lambda: bench.hybrids(start, 2 * steps)))
    with block_loss(frequency):
        name = "ours, from blocks by norm + L1 of the spectrum"
        together.append(bench.row(name, steps, lambda: bench.hybrids(bench.blocks(steps), steps)))

    kinds = (f"{kind} {family}" for kind in ("fidelity", "all") for family in FAMILIES)
    keys = [*kinds, "random"]
    columns = {"recipe": "recipe", "steps": "steps"} | {key: f"{key}:.3f" for key in keys}
    print(markdown(columns, blocks), markdown(columns, together), sep="\n\n")


if __name__ == "__main__":
    main()
