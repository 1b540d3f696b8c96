"""Random networks compiled and compared with torch, as many as asked for.

    python -m tests.fuzz.networks --count 1000 --way aarch64 --log results/fuzz.jsonl

A network counts when it is an independent random one of at least five operators with its own image,
weights and sizes. Several are compiled into one library, since a library of its own for each costs
more than its kernels; every network's outputs are compared by themselves with float64. What fails
is cut down to the fewest steps that still fail.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

from distillc.runtime.precision import PRECISIONS
from tests.fuzz.judge import WAYS, Verdict, judge
from tests.fuzz.network import Cut, build, smaller

Judge = Callable[[Sequence[Cut]], list[Verdict]]
PATIENCE_S = 300
"""Seconds that one library may take."""


class Worker:
    """A process that judges; another takes its place when it crashes or hangs.

    Args:
        judge: What it runs; it can be pickled.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, cuts: Sequence[Cut]) -> list[Verdict]:
        """Return a verdict for each network."""
        self._pool = self._pool or ProcessPoolExecutor(
            1, get_context("spawn"), torch.set_num_threads, (1,), max_tasks_per_child=100
        )
        try:
            return self._pool.submit(self._judge, cuts).result(PATIENCE_S)
        except (BrokenProcessPool, TimeoutError) as error:
            self.close()
            if len(cuts) > 1:
                return [verdict for cut in cuts for verdict in self([cut])]
            return [Verdict(cuts[0], "crashed", type(error).__name__)]

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def minimise(verdict: Verdict, judge: Judge) -> Verdict:
    """Return the smallest network found that fails in the same way."""
    changed = True
    while changed:
        changed = False
        for cut in smaller(verdict.cut):
            (found,) = judge([cut])
            if found.kind == verdict.kind and _cause(found) == _cause(verdict):
                verdict, changed = found, True
                break
    return verdict


def _cause(verdict: Verdict) -> str:
    """Return what messages of one fault share: words, no numbers."""
    return "" if verdict.kind == "wrong" else re.sub(r"[^a-z ]", "", verdict.text[:60])


def judged(path: Path | None, way: str, precision: str) -> set[int]:
    """Return the seeds that a log says are done."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    found = [json.loads(line) for line in lines]
    return {
        seed
        for each in found
        if (each["way"], each["precision"]) == (way, precision)
        for seed in each["seeds"]
    }


def packs(seeds: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield seeds a library's worth at a time; every tenth library holds one network.

    Networks with complex numbers stand together: what stands beside one is traced twice.
    """
    for first in range(0, len(seeds), 9 * size + 1):
        alone, *others = seeds[first : first + 9 * size + 1]
        others.sort(key=uses_complex)
        yield [alone]
        for start in range(0, len(others), size):
            yield others[start : start + size]


def uses_complex(seed: int) -> bool:
    """Whether a seed's network has Fourier transforms or other complex numbers."""
    return any(step.layer.family == "frequency" for step in build(Cut(seed)).steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first; others follow")
    parser.add_argument("--way", choices=WAYS, default="host")
    parser.add_argument("--precision", choices=[*PRECISIONS], default="fp32")
    parser.add_argument("--together", type=int, default=12, help="networks in a library")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after")
    parser.add_argument("--log", type=Path, help="lines of JSON; a second run goes on after it")
    given = parser.parse_args()
    done = judged(given.log, given.way, given.precision)
    seeds = [each for each in range(given.seed, given.seed + given.count) if each not in done]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    worker = Worker(functools.partial(judge, way=given.way, precision=given.precision))
    start = time.monotonic()
    counts: Counter[str] = Counter()
    for together in packs(seeds, given.together):
        verdicts = worker([Cut(seed) for seed in together])
        counts.update(each.kind for each in verdicts)
        others = [each for each in verdicts if each.kind != "right"]
        for each in others:
            small = each if each.kind == "refused" else minimise(each, worker)
            print(f"\n{each.kind}: seed {each.cut.seed}: {each.text}")
            if small.kind != "refused":
                print(f"{small.cut}: {small.text}\n{build(small.cut)}", flush=True)
        if given.log:
            row = {"way": given.way, "precision": given.precision, "commit": commit.stdout.strip()}
            row |= {"seeds": together, "others": [[e.cut.seed, e.kind, e.text] for e in others]}
            with given.log.open("a") as log:
                log.write(json.dumps(row) + "\n")
        if time.monotonic() - start > 60 * given.minutes:
            break
    worker.close()
    rate = sum(counts.values()) / (time.monotonic() - start)
    print(f"\n{dict(counts)} by {given.way}, {given.precision}; {rate:.2f} networks a second")
    raise SystemExit(any(counts[kind] for kind in ("wrong", "failed", "crashed")))


if __name__ == "__main__":
    main()
