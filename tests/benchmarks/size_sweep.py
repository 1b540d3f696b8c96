"""Time and memory against image size, with the exponents that fit.

    python -m tests.benchmarks.size_sweep --json sweep.json --plot sweep.png

A network whose cost is linear in pixels has exponent 1. Memory is what the first run adds to a
fresh process at its peak: activations and scratch, not weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.networks import TEACHER, Artifacts, NetworkSpec, add_network_arguments
from tests.benchmarks.race import PAUSE_S, Worker, race
from tests.benchmarks.report import (
    describe_machine,
    fit_exponent,
    markdown,
    percentiles,
    save,
)

COLUMNS = {
    "network": "network",
    "engine": "engine",
    "size": "size",
    "median ms": "median_ms:.1f",
    "p10": "p10_ms:.1f",
    "p90": "p90_ms:.1f",
    "ns per pixel": "ns_per_pixel:.0f",
    "peak MiB": "peak_mib:.1f",
    "bytes per pixel": "bytes_per_pixel:.0f",
    "max error": "max_error:.1e",
}
FIT_COLUMNS = {
    "network": "network",
    "engine": "engine",
    "time ~ pixels^": "time:.3f",
    "peak memory ~ pixels^": "memory:.3f",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--networks", nargs="+", default=[TEACHER, "mamba"])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["distillc"])
    parser.add_argument("--plot", type=Path, help="where to draw it (PNG)")
    add_network_arguments(parser, dim=16, blocks=(1, 1, 1, 1, 1))
    given = parser.parse_args()

    machine = describe_machine(given.threads)
    rows = [
        measure(NetworkSpec(family, given.dim, tuple(given.blocks)), engine, size, given)
        for family in given.networks
        for engine in given.engines
        for size in given.size
    ]
    fits = fit(rows) if len(given.size) > 1 else []
    print(f"{machine['cpu']}, {given.threads} threads, medians of {given.runs} runs\n")
    print(markdown(COLUMNS, rows))
    print(f"\n{markdown(FIT_COLUMNS, fits)}")
    save(given.json, machine, rows=rows, fits=fits, dim=given.dim, blocks=given.blocks)
    if given.plot:
        plot(rows, fits, given.plot)


def measure(spec: NetworkSpec, engine: str, size: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return time, memory and error of a network at one size, from a process of its own."""
    print(f"{spec.family} in {engine} at {size}", file=sys.stderr)
    artifacts = Artifacts(given.work_dir)
    path = artifacts.file(engine, spec, size).path
    worker = Worker(engine, path, (1, 3, size, size), given.threads)
    try:
        assert worker.output is not None
        error = float(np.abs(worker.output - artifacts.reference(spec, size)).max())
        ms = race({spec: worker}, given.runs, pause_s=PAUSE_S)[spec]
    finally:
        worker.close()
    row: dict[str, Any] = {"network": spec.family, "engine": engine, "size": size, "ms": ms}
    row |= percentiles(ms) | {"peak_bytes": worker.peak_bytes, "max_error": error}
    row["ns_per_pixel"] = row["median_ms"] * 1e6 / size**2
    row["peak_mib"] = worker.peak_bytes / 2**20
    row["bytes_per_pixel"] = worker.peak_bytes / size**2
    return row


def fit(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the exponents of time and memory in pixels of each network and engine."""
    fits = []
    for (network, engine), series in group(rows).items():
        pixels = [row["size"] ** 2 for row in series]
        time = fit_exponent(pixels, [row["median_ms"] for row in series])
        memory = fit_exponent(pixels, [row["peak_bytes"] for row in series])
        fits.append({"network": network, "engine": engine, "time": time, "memory": memory})
    return fits


def group(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group rows by network and engine."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["engine"]), []).append(row)
    return groups


def plot(rows: Sequence[dict[str, Any]], fits: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw time and peak memory against pixels, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    exponents = {(each["network"], each["engine"]): each for each in fits}
    quantities = (("time", "median_ms", "milliseconds"), ("memory", "peak_mib", "peak MiB"))
    for axis, (name, key, unit) in zip(axes, quantities, strict=True):
        for series, members in group(rows).items():
            label = " in ".join(series)
            if series in exponents:
                label += f", pixels^{exponents[series][name]:.2f}"
            axis.loglog(
                [row["size"] ** 2 for row in members],
                [row[key] for row in members],
                marker="o",
                label=label,
            )
        axis.set(xlabel="pixels", ylabel=unit)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
