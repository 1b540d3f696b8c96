"""The scans alone: nanoseconds for one position, channel and state on one core.

python -m tests.benchmarks.scan --length 16384 --channels 96
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from math import isqrt
from statistics import median
from typing import Any

import numpy as np
import tvm
from tvm import tirx

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.axial_scan import Sizes, axial_scan_kernel
from distillc.codegen.kernels.selective_scan import Rates, selective_scan_kernel
from distillc.codegen.schedule.apply_rules import schedule_func
from distillc.targets.base import get_target
from tests.benchmarks.race import ROOT, thread_settings
from tests.benchmarks.report import markdown

CASES = (
    *(
        ("selective", states, reverse, rates.name.lower())
        for states, reverse, rates in (
            (1, False, Rates.OWN),
            (1, True, Rates.OWN),
            (4, False, Rates.OWN),
            (4, True, Rates.OWN),
            (4, False, Rates.EQUAL),
            (4, False, Rates.MULTIPLES),
        )
    ),
    *(
        (kind, states, reverse, "a head")
        for kind in ("columns", "rows")
        for states, reverse in (
            (1, False),
            (2, False),
            (2, True),
            (4, False),
        )
    ),
)
"""What is scanned, states, whether backwards, and how many decay rates there are."""
HEAD = 16
"""Channels that share a step size where columns or rows are scanned."""
ROUNDS = 5
"""How often all cases take their turn: where memory lies changes a case by a tenth."""

COLUMNS = {
    "scan": "kind",
    "positions": "length",
    "channels": "channels",
    "states": "states",
    "reverse": "reverse",
    "rates": "rates",
    "ms": "ms:.2f",
    "fastest": "fastest_ms:.2f",
    "ns per (l, d, n)": "ns:.3f",
    "fastest, ns": "fastest_ns:.3f",
}


def build_scan(
    length: int, channels: int, kind: str, states: int, reverse: bool, rates: str
) -> tirx.PrimFunc:
    """Return the kernel of a case; rows and columns are those of a square image."""
    target = get_target("host")
    if kind == "selective":
        own = Rates[rates.upper()]
        return selective_scan_kernel(1, channels, length, states, 1, True, reverse, target, own)
    code = ("columns", "rows").index(kind) + 2 * reverse
    side = isqrt(length)
    heads = channels // HEAD
    sizes = Sizes(1, channels, side, side, heads, 1, states, (code,))
    return axial_scan_kernel(sizes, target)


class Scan:
    """The kernel, softplus included, on the threads of the environment; meant for one."""

    def __init__(self, length: int, channels: int, *case: Any) -> None:
        self.length, self.channels, self.case = length, channels, case
        target = get_target("host")
        self.kernel = build_scan(length, channels, *case)
        func = schedule_func(self.kernel, target, "scan")
        mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
        self.entry = tvm.compile(mod, tvm_target(target))["main"]
        self.ms: list[float] = []

    def take_turn(self, runs: int) -> None:
        """Time it some times, on tensors of its own."""
        random = np.random.default_rng(0)
        arrays = [
            random.standard_normal([int(extent) for extent in buffer.shape], dtype=np.float32)
            for buffer in self.kernel.params
        ]
        arrays[2] = -np.abs(arrays[2]) - np.float32(0.5)  # rates of decay
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        for turn in range(runs + 2):
            start = time.perf_counter()
            self.entry(*tensors)
            if turn >= 2:
                self.ms.append((time.perf_counter() - start) * 1e3)
        if not np.isfinite(tensors[-1].numpy()).all():
            raise RuntimeError("the scan returned NaN or infinity")

    def row(self) -> dict[str, Any]:
        kind, states, reverse, rates = self.case
        found = median(self.ms)
        work = self.length * self.channels * states
        return {
            "kind": kind,
            "length": self.length,
            "channels": self.channels,
            "states": states,
            "reverse": "yes" if reverse else "no",
            "rates": rates,
            "ms": found,
            "fastest_ms": min(self.ms),
            "ns": found * 1e6 / work,
            "fastest_ns": min(self.ms) * 1e6 / work,
        }


def time_scans(length: int, channels: int, runs: int) -> list[dict[str, Any]]:
    """Return one row for each of `CASES`, timed in turn."""
    scans = [Scan(length, channels, *case) for case in CASES]
    for _ in range(ROUNDS):
        for scan in scans:
            scan.take_turn(runs)
    return [scan.row() for scan in scans]


def scan_rows(length: int, channels: int, runs: int) -> list[dict[str, Any]]:
    """Return the rows of `time_scans`, measured in another process on one thread."""
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
    parser.add_argument("--length", type=int, default=16384, help="positions, a square")
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--runs", type=int, default=10, help="of a case in each of its turns")
    parser.add_argument("--rows", action="store_true", help="print JSON, on inherited threads")
    given = parser.parse_args()
    if given.rows:
        print(json.dumps(time_scans(given.length, given.channels, given.runs)))
    else:
        print(markdown(COLUMNS, scan_rows(given.length, given.channels, given.runs)))


if __name__ == "__main__":
    main()
