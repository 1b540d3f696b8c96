"""The result tables: teachers against hybrids on test sets, latencies of one run.

    python -m tests.benchmarks.hybrids --train BSDS500 --out results
    python -m tests.benchmarks.results --bundles results --test CBSD68 --train BSDS500 --plots docs

PSNR and SSIM: whole images cropped to multiples of 8, degraded with fixed seeds, noise not clipped,
output clipped to [0, 1], mean over images. Latency: teacher and hybrids compiled for this machine
and timed in turn. Error: what `distillc convert` measured when it verified the bundle's own aarch64
library under qemu-aarch64 against torch, on real images. A task's figures are kept in
`results/TASK.json` until a bundle is newer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import distillc
from distillc.codegen.tuning.time_modules import time_modules
from distillc.data.images import open_data, open_test_set
from distillc.data.windows import Pair, Windows
from distillc.frontend.cost import count_cost
from distillc.network import KEEP, Network
from distillc.passes import FindAttention, SynthesizeSurrogates, Trace
from distillc.runtime.bundle import Bundle
from distillc.runtime.quality import measure_quality
from distillc.workdir import read_tensors, write_json
from tests.benchmarks.hybrids import CASES, Case, bundle_path
from tests.benchmarks.report import markdown
from tests.benchmarks.result_plots import plot_crops, plot_front, random_points


def load_hybrid(bundle: Bundle, teacher: Network) -> Network:
    """Return the network a bundle holds, runnable at any size, rebuilt from its decisions."""
    decisions = bundle.manifest["decisions"]
    labels = {label for label in decisions.values() if label != KEEP}
    net = teacher.at(tuple(bundle.manifest["size"]))
    net = distillc.Pipeline([Trace(), FindAttention(), SynthesizeSurrogates(sorted(labels))])(net)
    module = net.hybrid(decisions)
    module.load_state_dict(read_tensors(bundle.path / "weights.safetensors"))
    return Network(module, net.size, net.in_channels, multiple=net.multiple)


def made(case: Case, folder: Path) -> list[Path]:
    """Return the bundles of a case that are there."""
    paths = (bundle_path(folder, name) for name in case.hybrids)
    return [path for path in paths if path.exists()]


def open_case(case: Case, folder: Path) -> tuple[list[Bundle], list[Network]]:
    """Return the bundles of a case that are there; the teacher and the bundles' networks."""
    bundles = [Bundle.open(path) for path in made(case, folder)]
    teacher = distillc.load(case.teacher)
    return bundles, [teacher, *(load_hybrid(bundle, teacher) for bundle in bundles)]


SIZES = {"ms": ((256, 256), 40), "ms_720p": ((720, 1280), 7)}
"""Column -> (H, W) in pixels, and timed runs of each network."""

COLUMNS = {
    "network": "name",
    "PSNR dB": "psnr:.3f",
    "SSIM": "ssim:.4f",
    "drop dB": "drop:.3f",
    "bar dB": "bar:.2f",
    "second set, drop dB": "second_drop:.3f",
    "parameters": "params:,",
    "GMACs": "gmacs:.2f",
    "256x256 ms": "ms:.1f",
    "speed-up": "speedup:.2f",
    "720p ms": "ms_720p:.0f",
    "speed-up 720p": "speedup_720p:.2f",
    "aarch64 error": "max_error:.1e",
}


def restoration_quality(module: nn.Module, pairs: Sequence[Pair]) -> dict[str, float]:
    """Return mean PSNR (dB) and SSIM of a module's output on whole images."""
    images = (Windows(str(index), (pair,)) for index, pair in enumerate(pairs))
    return asdict(measure_quality(module, None, images, "whole images").hybrid)


def measure(case: Case, folder: Path, test: Path) -> list[dict[str, Any]]:
    """Measure the teacher and every bundle of a case."""
    bundles, networks = open_case(case, folder)
    teacher = networks[0]
    pairs = [
        data.test_images(None, teacher.multiple)
        for data in (
            open_test_set(test, case.task, teacher.in_channels),
            open_data(None, case.task, teacher.in_channels),
        )
    ]
    rows: list[dict[str, Any]] = []
    for net, bundle in zip(networks, [None, *bundles], strict=True):
        row: dict[str, Any] = {"name": "teacher", **restoration_quality(net.module, pairs[0])}
        row["second_psnr"] = restoration_quality(net.module, pairs[1])["psnr"]
        cost = count_cost(net.module, (1, net.in_channels, *SIZES["ms"][0]))
        row |= {"params": cost.params, "gmacs": cost.macs / 1e9}
        if bundle:
            name = bundle.path.stem
            row |= {"name": name, "bar": case.bars.get(case.hybrids[name] or 0)}
            row["decisions"] = bundle.manifest["decisions"]
            row["max_error"] = bundle.manifest["metrics"]["verification"]["max_error"]
            row["drop"] = rows[0]["psnr"] - row["psnr"]
            row["second_drop"] = rows[0]["second_psnr"] - row["second_psnr"]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    for column, (size, runs) in SIZES.items():
        shape = (1, teacher.in_channels, *size)
        stats = time_modules([net.module for net in networks], shape, threads=2, runs=runs)
        for row, each in zip(rows, stats, strict=True):
            row[column] = each.median_ms
            row[column.replace("ms", "speedup")] = stats[0].median_ms / each.median_ms
    return rows


def kept_by_level(rows: list[dict[str, Any]]) -> str:
    """Return a table of how many blocks of each level every hybrid keeps."""
    decisions = [row["decisions"] for row in rows if "decisions" in row]
    levels = dict.fromkeys(name.rpartition(".")[0] for name in decisions[0])
    lines = []
    for row, own in zip([row for row in rows if "decisions" in row], decisions, strict=True):
        line = {"name": row["name"]}
        for level in levels:
            of = [label for name, label in own.items() if name.rpartition(".")[0] == level]
            line[level] = f"{of.count(KEEP)}/{len(of)}"
        lines.append(line)
    return markdown({"blocks kept": "name"} | {each: each for each in levels}, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", type=Path, default=Path("results"))
    parser.add_argument("--test", type=Path, required=True, help="folder of clean images")
    parser.add_argument("--train", type=Path, help="what they were trained on, for --plots")
    parser.add_argument("--plots", type=Path, help="folder for the pictures")
    parser.add_argument("--task", choices=[each.name for each in CASES], help="only this one")
    arguments = parser.parse_args()
    for case in CASES:
        times = [path.stat().st_mtime for path in made(case, arguments.bundles)]
        if not times or arguments.task not in (None, case.name):
            continue
        kept = arguments.bundles / f"{case.name}.json"
        if not kept.exists() or kept.stat().st_mtime < max(times):
            write_json(kept, measure(case, arguments.bundles, arguments.test))
        rows = json.loads(kept.read_text())
        print(f"\n## {case.task}\n\n{markdown(COLUMNS, rows)}\n\n{kept_by_level(rows)}")
        if arguments.plots:
            bundles, networks = open_case(case, arguments.bundles)
            plot_front(
                arguments.plots / f"{case.name}.png",
                bundles[-1].manifest["metrics"]["search"],
                random_points(case, arguments.train, arguments.bundles / "work"),
                rows,
            )
            plot_crops(
                arguments.plots / f"{case.name}_crops.jpg",
                case,
                {row["name"]: net for row, net in zip(rows, networks, strict=True)},
                arguments.test,
            )


if __name__ == "__main__":
    with torch.no_grad():
        main()
