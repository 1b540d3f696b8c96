"""The result table: teacher against hybrids on a test set, all figures measured in one run.

    python -m tests.benchmarks.results TEACHER BUNDLE [BUNDLE ...] --data CBSD68 --json out.json

PSNR and SSIM: whole images cropped to multiples of 8, noise of the task not clipped, seed 0, output
clipped to [0, 1], mean over images. Latency: teacher and hybrids compiled for this machine at the
bundle's size, timed in turn. Error: what `distillc convert` measured when it verified the bundle's
own aarch64 library under qemu-aarch64 against torch, on real images.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

import distillc
from distillc.codegen.measure import time_modules
from distillc.data.images import open_data
from distillc.data.tasks import parse_task
from distillc.network import KEEP, Network
from distillc.passes import FindAttention, Trace
from distillc.runtime.bundle import Bundle
from distillc.runtime.verify import restoration_quality
from distillc.surrogates.registry import build_surrogate, parse_label
from distillc.workdir import read_tensors


def load_hybrid(bundle: Bundle, teacher: Network) -> Network:
    """Return the network a bundle holds, runnable at any size, rebuilt from its decisions."""
    net = distillc.Pipeline([Trace(), FindAttention()]).run(
        teacher.at(tuple(bundle.manifest["size"]))
    )
    module = net.hybrid({})
    for name, label in bundle.manifest["decisions"].items():
        if label == KEEP:
            continue
        spec, scope = parse_label(label)
        block = net.block(name)
        path, shape = (
            (name, block.shape) if scope == "block" else (block.attention, block.attention_shape)
        )
        module.set_submodule(path, build_surrogate(spec, shape[1], scope))
    module.load_state_dict(read_tensors(bundle.path / "weights.safetensors"))
    return Network(module.eval(), net.size, net.in_channels, multiple=net.multiple)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    bundles = [Bundle.open(path) for path in arguments.bundles]
    task = parse_task(bundles[0].manifest["task"])
    size = tuple(bundles[0].manifest["size"])
    teacher = distillc.load(arguments.teacher)
    networks = [teacher, *(load_hybrid(bundle, teacher) for bundle in bundles)]
    names = ["teacher", *(path.stem for path in arguments.bundles)]
    pairs = open_data(arguments.data, task, teacher.in_channels, held_out=1.0).test_images(
        None, teacher.multiple
    )

    rows: list[dict[str, Any]] = []
    modules = [net.module for net in networks]
    stats = time_modules(modules, (1, teacher.in_channels, *size), threads=2, runs=40)
    for index, (name, net) in enumerate(zip(names, networks, strict=True)):
        row: dict[str, Any] = {"name": name, **restoration_quality(net.module, pairs)}
        row["params"] = sum(parameter.numel() for parameter in net.module.parameters())
        row["latency_ms"] = stats[index].median_ms
        row["speedup"] = stats[0].median_ms / stats[index].median_ms
        if index:
            bundle = bundles[index - 1]
            decisions = bundle.manifest["decisions"]
            row["kept"] = sum(label == KEEP for label in decisions.values())
            row["blocks"] = len(decisions)
            check = bundle.manifest["metrics"]["verification"]
            row["device"], row["max_error"] = check["device"], check["max_error"]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| network | PSNR dB | SSIM | drop dB | blocks kept | parameters | host ms | speed-up "
        "| max error against torch |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        drop = rows[0]["psnr"] - row["psnr"]
        kept = f"{row['kept']}/{row['blocks']}" if "kept" in row else "all"
        error = f"{row['max_error']:.1e} ({row['device']})" if "max_error" in row else ""
        lines.append(
            f"| {row['name']} | {row['psnr']:.3f} | {row['ssim']:.4f} | {drop:.3f} | {kept} "
            f"| {row['params']:,} | {row['latency_ms']:.1f} | {row['speedup']:.2f} | {error} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with torch.no_grad():
        main()
