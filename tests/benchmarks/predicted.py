"""How well the search's costs predict the latency of whole hybrids.

    python -m tests.benchmarks.predicted CKPT --size 128 128 --hybrids 12 --json FILE

Profiles the blocks as a conversion does, draws decisions at random, predicts each hybrid's latency
as the search does, then compiles the hybrids and times them in turn. The surrogates are untrained;
their last projections are random, lest a compiler drop what is multiplied by zero.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import distillc
from distillc.budgets import get_budget
from distillc.codegen.tuning.time_modules import time_modules
from distillc.network import KEEP, Network
from distillc.passes import FindAttention, ProfileBlocks, SynthesizeSurrogates, Trace
from distillc.search.space import search_space
from distillc.workdir import write_json
from tests.benchmarks.networks import wake
from tests.benchmarks.static_cost import spearman


@dataclass(frozen=True)
class Row:
    """A hybrid: its decisions, and its latency as predicted and as measured, ms."""

    decisions: dict[str, str]
    predicted_ms: float
    measured_ms: float


def profile(
    checkpoint: Path, size: tuple[int, int], labels: Sequence[str], threads: int
) -> Network:
    """Return the network with candidates and costs."""
    net = distillc.load(checkpoint).at(size)
    net = distillc.Pipeline([Trace(), FindAttention(), SynthesizeSurrogates(labels)]).run(net)
    for found in net.candidates.values():
        for each in found:
            wake(each.module)
    return ProfileBlocks(threads=threads)(net)


def draw(net: Network, count: int, seed: int) -> list[dict[str, str]]:
    """Return different random decisions; each has its own share of blocks that stay."""
    source, drawn = random.Random(seed), []
    while len(drawn) < count:
        kept = source.random()
        decisions = {}
        for block in net.blocks:
            labels = [each.label for each in net.candidates.get(block.name, ())]
            stays = not labels or source.random() < kept
            decisions[block.name] = KEEP if stays else source.choice(labels)
        if decisions not in drawn:
            drawn.append(decisions)
    return drawn


def measure(net: Network, drawn: Sequence[dict[str, str]], threads: int, runs: int) -> list[Row]:
    """Predict the latency of hybrids, compile them, and time them in turn."""
    space = search_space(net, "latency")
    modules = [net.hybrid(decisions) for decisions in drawn]
    stats = time_modules(modules, net.input_shape, threads, runs)
    return [
        Row(decisions, space.cost(space.choice(decisions)), each.median_ms)
        for decisions, each in zip(drawn, stats, strict=True)
    ]


def summarise(rows: Sequence[Row]) -> dict[str, float]:
    """Return the rank correlation and the mean absolute error, in ms and of the measured time."""
    errors = [abs(row.predicted_ms - row.measured_ms) for row in rows]
    relative = [error / row.measured_ms for error, row in zip(errors, rows, strict=True)]
    return {
        "spearman": spearman([r.predicted_ms for r in rows], [r.measured_ms for r in rows]),
        "mean_error_ms": sum(errors) / len(rows),
        "mean_error": sum(relative) / len(rows),
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown, the fastest first."""
    lines = ["| blocks replaced | predicted ms | measured ms | ratio |", "|---:|---:|---:|---:|"]
    for row in sorted(rows, key=lambda row: row.measured_ms):
        replaced = sum(label != KEEP for label in row.decisions.values())
        ratio = row.predicted_ms / row.measured_ms
        lines.append(
            f"| {replaced} | {row.predicted_ms:.2f} | {row.measured_ms:.2f} | {ratio:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("H", "W"))
    parser.add_argument("--hybrids", type=int, default=12)
    parser.add_argument("--labels", nargs="+", default=get_budget("full").families)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    height, width = arguments.size
    net = profile(arguments.checkpoint, (height, width), arguments.labels, arguments.threads)
    print(net.log[-1].notes[0], file=sys.stderr, flush=True)
    drawn = draw(net, arguments.hybrids, arguments.seed)
    rows = measure(net, drawn, arguments.threads, arguments.runs)
    figures = summarise(rows)
    print(table(rows))
    print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    if arguments.json:
        options = {key: str(value) for key, value in vars(arguments).items() if key != "json"}
        rest = net.metrics["profile"]
        written = [asdict(row) for row in rows]
        write_json(
            arguments.json,
            {"options": options, "profile": rest, **figures, "rows": written},
        )


if __name__ == "__main__":
    main()
