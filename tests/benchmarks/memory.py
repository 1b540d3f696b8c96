"""Memory that one run of a published network takes, in engines beside each other.

    python -m tests.benchmarks.memory --size 512 --networks SwinIR-light HAT-S --json memory.json

Each engine loads the network in a process of its own and runs it once. The peak is what that adds
to the process: activations and scratch, not weights.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.networks import Artifacts, add_work_arguments
from tests.benchmarks.published import PublishedNetwork
from tests.benchmarks.race import Worker
from tests.benchmarks.report import describe_machine, markdown, save
from tests.c_api import Library

COLUMNS = {
    "network": "network",
    "size": "size",
    "engine": "engine",
    "peak MiB": "peak_mib:.1f",
    "planned MiB": "planned_mib:.1f",
    "bytes per pixel": "bytes_per_pixel:.0f",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--networks", nargs="+", default=["SwinIR-light", "HAT-S", "DAT-light"])
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=["distillc", "onnxruntime"]
    )
    add_work_arguments(parser)
    given = parser.parse_args()
    machine = describe_machine(given.threads)
    rows = []
    for name in given.networks:
        for engine in given.engines:
            rows.append(measure(PublishedNetwork(name, given.size), engine, given))
            print(rows[-1], file=sys.stderr, flush=True)
    print(f"{machine['cpu']}, {given.threads} threads\n\n{markdown(COLUMNS, rows)}")
    save(given.json, machine, rows=rows)


def measure(network: PublishedNetwork, engine: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what the first run in a fresh process adds to its memory at the peak."""
    path = Artifacts(given.work_dir).file(engine, network, given.size).path
    shape = (1, 3, given.size, given.size)
    worker = Worker(engine, path, shape, given.threads, keep_output=False)
    worker.close()
    row: dict[str, Any] = {"network": Path(network.name).stem, "size": given.size, "engine": engine}
    row |= {"peak_bytes": worker.peak_bytes, "peak_mib": worker.peak_bytes / 2**20}
    row["bytes_per_pixel"] = worker.peak_bytes / given.size**2
    if engine == "distillc":
        library = Library(path)
        row["planned_mib"] = library.info.planned_bytes / 2**20
        library.close()
    return row


if __name__ == "__main__":
    main()
