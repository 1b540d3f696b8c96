"""What a kind of surrogate is worth: to blocks, and to hybrids.

    python -m tests.benchmarks.surrogates CKPT --task deblur --data BSDS500 --test CBSD68 \
        --work-dir results/surrogates

First table: every surrogate's fidelity (relative error, lower is better) and latency in every
block, all trained for equally many steps on the same images. Second table: for every `conv`, in
how many blocks some `ssd` or some `mamba` that takes at most `SLACK` of its time is at least as
faithful. Third table: hybrids of equal speed from other sets of families, everything else equal:
trained together, searched, healed; what they lose on test images that none of it saw. With
`--crops`, fidelities on crops of other sizes than the one trained on; with `--plot`, receptive
fields of the teacher and of the hybrids of the first speed-up. Finished parts are kept in the work
directory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

import distillc
from distillc.data.images import open_data, open_test_set
from distillc.data.windows import Windows
from distillc.errors import QualityError
from distillc.network import KEEP, Network
from distillc.passes import (
    ApplyReplacements,
    DistillBlocks,
    DistillHybrids,
    FindAttention,
    Heal,
    ProfileBlocks,
    SearchReplacements,
    SynthesizeSurrogates,
    Trace,
)
from distillc.passes.students import Students
from distillc.pipeline import Context, Pipeline
from distillc.runtime.quality import measure_quality
from distillc.stages import WorkDir
from distillc.workdir import write_json
from tests.benchmarks.receptive_field import plot_fields, receptive_field
from tests.benchmarks.report import markdown

STATES = ("ssd", "mamba")
"""Families with a state."""
WIDTHS = ("50", "100", "133", "166", "200")
LABELS = (
    *(f"conv:width={width}" if width != "100" else "conv" for width in WIDTHS),
    "skip",
    *(
        f"{family}:{options}" if options else family
        for family in STATES
        for options in ("values=25,width=50", "values=50,width=66", "values=50", "")
    ),
)
SETS = {
    "conv": ("conv", "skip"),
    "conv, ssd": ("conv", "skip", "ssd"),
    "conv, ssd, mamba": ("conv", "skip", *STATES),
}
"""Families that a hybrid may hold."""

SLACK = 1.05

_FIELD_IMAGES = 8
_FIELD_EDGE = 256


def family(label: str) -> str:
    return label.partition(":")[0]


def train(checkpoint: Path, arguments: argparse.Namespace, ctx: Context) -> Network:
    """Return the network with all surrogates, trained one by one and timed."""
    teacher = distillc.load(checkpoint).at((arguments.size, arguments.size))
    net = Pipeline([Trace(), FindAttention()]).run(teacher, ctx)
    if arguments.blocks:
        net = net.with_(blocks=tuple(map(net.block, arguments.blocks)))
    passes = [
        SynthesizeSurrogates(arguments.labels or LABELS),
        DistillBlocks(arguments.data, arguments.task, arguments.steps),
        ProfileBlocks(),
    ]
    return Pipeline(passes).run(net, ctx)


def of_blocks(net: Network) -> str:
    """Return the table of blocks: fidelity, milliseconds."""
    labels = [each.label for each in next(iter(net.candidates.values()))]
    rows: list[dict[str, Any]] = []
    for name, candidates in net.candidates.items():
        row = {"block": name, "own": f"{net.block(name).latency_ms:.2f}"}
        for number, each in enumerate(candidates):
            row[str(number)] = f"{each.fidelity:.3f}, {each.latency_ms:.2f}"
        rows.append(row)
    mean = {"block": "mean"}
    for number in range(len(labels)):
        own = [candidates[number] for candidates in net.candidates.values()]
        fidelity = fmean(each.fidelity or 0 for each in own)
        latency = fmean(each.latency_ms or 0 for each in own)
        mean[str(number)] = f"{fidelity:.3f}, {latency:.2f}"
    columns = {"block": "block", "itself, ms": "own"}
    columns |= {label: str(number) for number, label in enumerate(labels)}
    return markdown(columns, [*rows, mean])


def at_equal_time(net: Network) -> str:
    """Return the table of blocks won."""
    rows = []
    labels = [each.label for each in next(iter(net.candidates.values()))]
    for rival in (label for label in labels if family(label) == "conv"):
        row: dict[str, Any] = {"rival": rival, "blocks": len(net.candidates)}
        for name in STATES:
            row[name] = sum(
                _wins(candidates, rival, name) for candidates in net.candidates.values()
            )
        rows.append(row)
    return markdown({each: each for each in ("rival", "blocks", *STATES)}, rows)


def _wins(candidates: Sequence[Any], rival: str, name: str) -> bool:
    """Whether some surrogate of a family is as fast and as faithful as the rival."""
    conv = next(each for each in candidates if each.label == rival)
    return any(
        family(each.label) == name
        and each.latency_ms <= SLACK * conv.latency_ms
        and each.fidelity <= conv.fidelity
        for each in candidates
    )


def of_crops(net: Network, crops: Sequence[int], arguments: argparse.Namespace) -> str:
    """Return the table of mean fidelities on crops of some sizes."""
    data = open_data(arguments.data, arguments.task, net.in_channels)
    rows = []
    for crop in crops:
        students = Students.of(net)
        students.judge(net.module, data, crop, "cpu")
        found: dict[str, list[float]] = {}
        for each in students:
            found.setdefault(each.surrogate.label, []).append(each.fidelity)
        row = {str(number): f"{fmean(own):.3f}" for number, own in enumerate(found.values())}
        rows.append({"crop": f"{crop}x{crop}", **row})
    columns = {"crop": "crop"} | {label: str(number) for number, label in enumerate(found)}
    return markdown(columns, rows)


def heal(
    net: Network,
    families: Sequence[str],
    speedup: float,
    arguments: argparse.Namespace,
    ctx: Context,
) -> tuple[dict[str, Any], nn.Module]:
    """Return figures of the hybrid of at least this speed-up from these families, and itself."""
    data, task = arguments.data, arguments.task
    net = net.with_(
        candidates={
            name: tuple(each for each in candidates if family(each.label) in families)
            for name, candidates in net.candidates.items()
        }
    )
    hybrid = Pipeline(
        [
            DistillHybrids(data, task, arguments.hybrid_steps),
            SearchReplacements(data, task, trials=arguments.trials, min_speedup=speedup),
            ApplyReplacements(),
            Heal(data, task, arguments.heal_steps),
        ]
    ).run(net, ctx)
    tests = open_test_set(arguments.test, task, net.in_channels)
    images = (
        Windows(str(number), (pair,))
        for number, pair in enumerate(tests.test_images(None, net.multiple))
    )
    with torch.no_grad():
        quality = measure_quality(hybrid.hybrid(), net.module, images, "whole images")
    labels = [label for label in hybrid.decisions.values() if label != KEEP]
    cost, psnr = hybrid.metrics["search"]["chosen"]
    figures = {
        "speedup": hybrid.metrics["search"]["teacher"][0] / cost,
        "before": hybrid.metrics["search"]["teacher"][1] - psnr,
        "drop": quality.drop_db,
        "worst": quality.worst_db,
        "replaced": len(labels),
        "states": sum(family(label) in STATES for label in labels),
        "scans": sum(family(label) == "mamba" for label in labels),
        "skips": labels.count("skip"),
        "labels": dict(hybrid.decisions),
    }
    return figures, hybrid.hybrid()


COLUMNS = {
    "families": "families",
    "speed-up asked": "asked:g",
    "found": "speedup:.2f",
    "lost before healing, dB": "before:.3f",
    "test, lost dB": "drop:.3f",
    "worst image": "worst:.3f",
    "replaced": "replaced",
    "with a state": "states",
    "with axial scans": "scans",
    "left out": "skips",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of clean images")
    parser.add_argument("--test", type=Path, required=True, help="folder of other clean images")
    parser.add_argument("--work-dir", type=Path, default=Path("results/surrogates"))
    parser.add_argument("--labels", nargs="+", help="surrogates, instead of the usual ones")
    parser.add_argument("--blocks", nargs="+", help="names of blocks, instead of all")
    parser.add_argument("--size", type=int, default=256, help="edge that latencies are for")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--speedups", nargs="*", type=float, default=[2, 3])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--hybrid-steps", type=int, default=400)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--heal-steps", type=int, default=600)
    parser.add_argument("--crops", nargs="+", type=int, help="edges, say 64 320")
    parser.add_argument("--plot", type=Path, help="a picture of receptive fields")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ctx = Context(WorkDir(arguments.work_dir))
    net = train(arguments.checkpoint, arguments, ctx)
    print(f"{of_blocks(net)}\n\n{at_equal_time(net)}\n", flush=True)
    if arguments.crops:
        print(of_crops(net, arguments.crops, arguments), flush=True)
    rows: list[dict[str, Any]] = []
    hybrids = {"teacher": net.module}
    for speedup in arguments.speedups:
        for name in arguments.sets:
            row: dict[str, Any] = {"families": name, "asked": speedup}
            try:
                figures, hybrid = heal(net, SETS[name], speedup, arguments, ctx)
                row |= figures
                hybrids.setdefault(name, hybrid)
            except QualityError as error:
                row["families"] = f"{name}: {error}"
            rows.append(row)
            print(row, flush=True)
    print(markdown(COLUMNS, rows))
    if arguments.plot:
        data = open_data(arguments.data, arguments.task, net.in_channels)
        images = [pair[0] for pair in data.held_out(_FIELD_IMAGES, _FIELD_EDGE)]
        plot_fields(
            arguments.plot, {name: receptive_field(each, images) for name, each in hybrids.items()}
        )
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
