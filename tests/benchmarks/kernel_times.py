"""Time of each kernel of a compiled network, in a process of its own.

    python -m tests.benchmarks.kernel_times LIBRARY SHAPE THREADS RUNS

Prints a JSON object: kernel name -> calls in one inference, and milliseconds of all of them, the
median over RUNS inferences.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from os import environ
from pathlib import Path
from statistics import median

from tests.benchmarks.engines import random_input
from tests.benchmarks.race import ROOT, thread_settings
from tests.c_api import Library


def time_kernels(
    library: Path, shape: tuple[int, ...], threads: int, runs: int
) -> dict[str, dict[str, float]]:
    """Return `calls` and `ms` of each kernel, measured in another process."""
    words = [str(library.resolve()), "x".join(map(str, shape)), str(threads), str(runs)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.kernel_times", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=environ | thread_settings(threads),
    )
    return json.loads(done.stdout)


def main(library: str, shape: str, threads: str, runs: str) -> None:
    network = Library(Path(library), int(threads))
    image = random_input(tuple(map(int, shape.split("x"))))
    for _ in range(2):
        network.run(image)
    times: list[Counter[str]] = []
    for _ in range(int(runs)):
        steps = network.profile(image)
        times.append(Counter())
        for name, ms in steps:
            times[-1][name] += ms  # type: ignore[assignment]
    calls = Counter(name for name, _ in steps)
    found = {
        name: {"calls": count, "ms": median(each[name] for each in times)}
        for name, count in calls.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
