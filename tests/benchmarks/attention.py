"""Attention of windows alone, as networks have it: GFLOP/s of its two products.

python -m tests.benchmarks.attention --threads 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import tvm

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.attention import attention_kernel
from distillc.codegen.kernels.attention_plan import AttentionSizes
from distillc.codegen.kernels.token_runs import HeadRows
from distillc.codegen.schedule.apply_rules import schedule_func
from distillc.targets.base import get_target
from tests.benchmarks.peak import measure_peak
from tests.benchmarks.race import ROOT, thread_settings
from tests.benchmarks.report import markdown


class Case(NamedTuple):
    """Windows of a network: rows and columns of them, their sides, those of the keys' windows."""

    name: str
    grid: tuple[int, int]
    window: tuple[int, int]
    around: int
    heads: int
    depth: int
    bias: bool
    masks: int


CASES = (
    Case("SwinIR-light", (8, 8), (8, 8), 0, 6, 10, True, 4),
    Case("SwinIR", (8, 8), (8, 8), 0, 6, 30, True, 4),
    Case("HAT", (4, 4), (16, 16), 0, 6, 30, True, 4),
    Case("HAT, overlapping", (4, 4), (16, 16), 4, 6, 30, True, 0),
    Case("DAT-light", (8, 2), (8, 32), 0, 4, 15, True, 0),
    Case("global", (1, 1), (32, 32), 0, 8, 32, False, 0),
    Case("global", (1, 1), (64, 64), 0, 8, 32, False, 0),
)
ROUNDS = 5
"""How often all cases take their turn."""

COLUMNS = {
    "attention": "name",
    "windows": "windows",
    "heads": "heads",
    "queries": "queries",
    "keys": "keys",
    "depth": "depth",
    "ms": "ms:.2f",
    "GFLOP/s": "rate:.0f",
    "of the peak, %": "share:.0f",
}


def case_sizes(case: Case) -> tuple[AttentionSizes, np.ndarray, np.ndarray]:
    """Return sizes and the tables of runs of queries and of keys."""
    rows, columns = case.grid
    height, width = case.window
    heads, depth, around = case.heads, case.depth, case.around

    def table(line: int, high: int) -> np.ndarray:
        top, left, row = np.ogrid[:rows, :columns, :high]
        starts = (top * height + row) * line + left * width
        return starts.reshape(rows * columns, high).astype(np.int32)

    wide, tall = width + 2 * around, height + 2 * around
    line = columns * width + 2 * around
    pixels = rows * height * columns * width
    own = line * (rows * height + 2 * around)
    q_at, k_at = table(columns * width, height), table(line, tall)
    sizes = AttentionSizes(
        *(rows * columns, heads, height * width, tall * wide, depth, depth, width, wide),
        *(
            HeadRows(3 * heads * depth, count, part * heads * depth, depth, 1)
            for part, count in enumerate((pixels, own, own))
        ),
        *(pixels, heads if case.bias else 0, case.masks),
    )
    return sizes, q_at, k_at


class AttentionRun:
    """A kernel of a case and its operands, on the threads of the environment."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.sizes, q_at, k_at = case_sizes(case)
        target, s = get_target("host"), self.sizes
        func = schedule_func(attention_kernel(s, target), target, "attention")
        mod = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
        self.entry = tvm.compile(mod, tvm_target(target))["main"]
        random = np.random.default_rng(0)

        def normal(*shape: int) -> Any:
            return tvm.runtime.tensor(random.standard_normal(shape, dtype=np.float32))

        q = normal(s.q.channels, s.q.pixels)
        kv = normal(s.k.channels, s.k.pixels) if case.around else q
        of_queries, of_keys = map(tvm.runtime.tensor, (q_at, k_at))
        self.operands = [q, kv, kv, of_queries, of_keys, of_keys, of_queries, normal(s.heads)]
        if s.biased:
            self.operands.append(normal(s.biased, *s.table_shape))
        if s.masks:
            self.operands.append(normal(s.masks, *s.table_shape))
            # Masks belong to the windows of the border.
            masked = np.where(np.arange(s.windows) % 4, -1, 0).astype(np.int32)
            self.operands.append(tvm.runtime.tensor(masked))
        self.operands.append(normal(s.heads * s.values, s.pixels))
        self.ms: list[float] = []

    def take_turn(self, runs: int) -> None:
        """Time it some times."""
        for turn in range(runs + 2):
            start = time.perf_counter()
            self.entry(*self.operands)
            if turn >= 2:
                self.ms.append((time.perf_counter() - start) * 1e3)

    def row(self) -> dict[str, Any]:
        s = self.sizes
        work = 2 * s.windows * s.heads * s.queries * s.keys * (s.depth + s.values)
        counts = {name: getattr(s, name) for name in ("windows", "heads", "queries", "keys")}
        found = {"name": self.case.name, "depth": s.depth, "ms": median(self.ms), **counts}
        return {**found, "rate": work / found["ms"] / 1e6}


def time_attention(runs: int) -> list[dict[str, Any]]:
    """Return one row for each of `CASES`, timed in turn."""
    made = [AttentionRun(case) for case in CASES]
    for _ in range(ROUNDS):
        for run in made:
            run.take_turn(runs)
    return [run.row() for run in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=10, help="of a case in each of its turns")
    parser.add_argument("--rows", action="store_true", help="print JSON, on inherited threads")
    given = parser.parse_args()
    if given.rows:
        print(json.dumps(time_attention(given.runs)))
        return
    peak = measure_peak(given.threads)["fma"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.attention", "--runs", str(given.runs), "--rows"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | thread_settings(given.threads),
    )
    rows = [row | {"share": 100 * row["rate"] / peak} for row in json.loads(done.stdout)]
    print(markdown(COLUMNS, rows))
    print(f"\nPeak of {given.threads} threads: {peak:.0f} GFLOP/s.")


if __name__ == "__main__":
    main()
