"""The speed that decisions of small networks give a full-size Restormer of random weights.

    python -m tests.benchmarks.patterns results/denoise-2x.distillc ... --size 256

The i-th of n blocks of a level takes the decision that stands at the same share of the small
network's level. Dim 48, blocks 4-6-6-8 with four of refinement (arXiv 2111.09881, section 4).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from distillc.codegen.tuning.time_modules import time_modules
from distillc.network import KEEP
from distillc.runtime.bundle import Bundle
from distillc.workdir import write_json
from tests.benchmarks.networks import NetworkSpec, block_names, replace_blocks
from tests.benchmarks.report import markdown


def scale_decisions(small: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """Give every block of a larger network the decision of its level, at its place in it."""
    levels: dict[str, list[str]] = {}
    for name, label in small.items():
        levels.setdefault(name.rpartition(".")[0], []).append(label)
    sizes: dict[str, int] = {}
    for name in names:
        level = name.rpartition(".")[0]
        sizes[level] = sizes.get(level, 0) + 1
    scaled = {}
    for name in names:
        level, _, place = name.rpartition(".")
        own = levels[level]
        scaled[name] = own[int(place) * len(own) // sizes[level]]
    return scaled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    full = NetworkSpec().build()
    names = block_names(full)
    patterns = {
        path.stem: scale_decisions(Bundle.open(path).manifest["decisions"], names)
        for path in given.bundles
    }
    hybrids = [replace_blocks(NetworkSpec().build(), each) for each in patterns.values()]
    shape = (1, 3, given.size, given.size)
    slow, *others = time_modules([full, *hybrids], shape, threads=2, runs=given.runs)
    rows = [
        {
            "pattern": name,
            "kept": f"{list(decisions.values()).count(KEEP)}/{len(names)}",
            "teacher": slow.median_ms,
            "hybrid": fast.median_ms,
            "speedup": slow.median_ms / fast.median_ms,
        }
        for (name, decisions), fast in zip(patterns.items(), others, strict=True)
    ]
    columns = {"pattern of": "pattern", "blocks kept": "kept", "teacher ms": "teacher:.0f"}
    print(markdown(columns | {"hybrid ms": "hybrid:.0f", "speed-up": "speedup:.2f"}, rows))
    if given.json:
        write_json(given.json, rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
