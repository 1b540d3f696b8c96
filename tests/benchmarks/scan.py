"""The selective scan alone: nanoseconds for one position, channel and state on one core.

python -m tests.benchmarks.scan --length 16384 --channels 96
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import tvm

from distillc.codegen.compile import tvm_target
from distillc.codegen.scan_kernel import selective_scan_kernel
from distillc.codegen.schedule import schedule_func
from distillc.targets.base import get_target
from tests.benchmarks.race import ROOT, thread_settings
from tests.benchmarks.report import markdown

CASES = ((1, False), (1, True), (4, False), (4, True))
COLUMNS = {
    "positions": "length",
    "channels": "channels",
    "states": "states",
    "reverse": "reverse",
    "ms": "ms:.2f",
    "fastest": "fastest_ms:.2f",
    "ns per (l, d, n)": "ns:.3f",
}


def time_scan(length: int, channels: int, states: int, reverse: bool, runs: int) -> dict[str, Any]:
    """Time the kernel, softplus included, on the threads of the environment; meant for one."""
    target = get_target("host")
    kernel = selective_scan_kernel(1, channels, length, states, 1, True, reverse, target)
    func = schedule_func(kernel, target, "selective_scan").with_attr("global_symbol", "main")
    executable = tvm.compile(tvm.IRModule({"main": func}), tvm_target(target))
    random = np.random.default_rng(0)
    arrays = [
        random.standard_normal([int(extent) for extent in buffer.shape], dtype=np.float32)
        for buffer in kernel.params
    ]
    arrays[2] = -np.abs(arrays[2]) - np.float32(0.5)  # rates of decay
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    entry = executable["main"]
    ms = []
    for _ in range(runs + 2):
        start = time.perf_counter()
        entry(*tensors)
        ms.append((time.perf_counter() - start) * 1e3)
    if not np.isfinite(tensors[-1].numpy()).all():
        raise RuntimeError("the scan returned NaN or infinity")
    found = median(ms[2:])
    return {
        "length": length,
        "channels": channels,
        "states": states,
        "reverse": "yes" if reverse else "no",
        "ms": found,
        "fastest_ms": min(ms),
        "ns": found * 1e6 / (length * channels * states),
    }


def scan_rows(length: int, channels: int, runs: int) -> list[dict[str, Any]]:
    """Return one row for each of `CASES`, measured in another process on one thread."""
    words = ["--length", length, "--channels", channels, "--runs", runs, "--rows"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.scan", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | thread_settings(1),
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--length", type=int, default=16384, help="positions")
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rows", action="store_true", help="print JSON, on inherited threads")
    given = parser.parse_args()
    if given.rows:
        sizes = (given.length, given.channels)
        print(json.dumps([time_scan(*sizes, *case, given.runs) for case in CASES]))
    else:
        print(markdown(COLUMNS, scan_rows(given.length, given.channels, given.runs)))


if __name__ == "__main__":
    main()
