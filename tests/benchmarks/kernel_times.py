"""Time of each kernel of a compiled network, in a process of its own.

    python -m tests.benchmarks.kernel_times LIBRARY SHAPE RUNS

Prints a JSON object: kernel name -> calls in one inference, and milliseconds of all of them, the
median over RUNS inferences. Threads are those of the environment (TVM_NUM_THREADS).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from os import environ
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.engines import random_input
from tests.benchmarks.race import ROOT, thread_settings


def time_kernels(
    library: Path, shape: tuple[int, ...], threads: int, runs: int
) -> dict[str, dict[str, float]]:
    """Return `calls` and `ms` of each kernel, measured in another process."""
    words = [str(library.resolve()), "x".join(map(str, shape)), str(runs)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.kernel_times", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=environ | thread_settings(threads),
    )
    return json.loads(done.stdout)


def main(library: str, shape: str, runs: str) -> None:
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())
    image = tvm.runtime.tensor(random_input(tuple(map(int, shape.split("x")))))
    for _ in range(2):
        machine["main"](image)
    seconds: list[Counter[str]] = []
    calls: Counter[str] = Counter()
    start = 0.0

    def instrument(func: Any, name: str, before: bool, result: Any, *_: Any) -> None:
        nonlocal start
        if before:
            start = time.perf_counter()
            return
        seconds[-1][name] += time.perf_counter() - start  # type: ignore[assignment]
        calls[name] += 1

    machine.set_instrument(instrument)
    for _ in range(int(runs)):
        seconds.append(Counter())
        machine["main"](image)
    found = {
        name: {
            "calls": count // int(runs),
            "ms": median(each[name] for each in seconds) * 1e3,
        }
        for name, count in calls.items()
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
