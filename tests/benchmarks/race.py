"""Workers that run in turn: never two at once, each with the machine to itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAUSE_S = 0.05
"""Between two workers: by then the threads of the last one have stopped waiting actively."""

Key = TypeVar("Key", bound=Hashable)


class WorkerError(Exception):
    """A worker ended; the message is the last line it wrote to stderr."""


class Worker:
    """A process of `tests.benchmarks.engines`, ready to run.

    Attributes:
        load_s: Seconds it took to load the network and run it once.
        peak_bytes: Memory that the first run added, at its peak.
        output: The network's output on `random_input`, None unless it was asked for.

    Raises:
        WorkerError: The engine cannot load or run the network.
    """

    def __init__(
        self, kind: str, path: Path, shape: tuple[int, ...], threads: int, keep_output: bool = True
    ) -> None:
        with tempfile.TemporaryDirectory(prefix="distillc-benchmark-") as folder:
            self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives with the process
            saved = [str(Path(folder, "output.npy"))] if keep_output else []
            words = [kind, str(path.resolve()), "x".join(map(str, shape)), str(threads), *saved]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.engines", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                cwd=ROOT,
                env=os.environ | thread_settings(threads),
            )
            ready = json.loads(self._answer().removeprefix("ready "))
            self.load_s: float = ready["load_s"]
            self.peak_bytes: int = ready["peak_bytes"]
            self.output: np.ndarray | None = np.load(saved[0]) if saved else None

    def run(self, times: int = 1) -> list[float]:
        """Run some times in a row; return the milliseconds of each."""
        assert self._process.stdin
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return json.loads(self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        raise WorkerError(lines[-1][:300] if lines else f"ended with {self._process.returncode}")


def thread_settings(threads: int) -> dict[str, str]:
    """Return the environment that fixes the threads of a process before it starts any."""
    return {"OMP_NUM_THREADS": str(threads), "TVM_NUM_THREADS": str(threads)}


def race(
    workers: Mapping[Key, Worker], runs: int, burst: int = 1, pause_s: float = PAUSE_S
) -> dict[Key, list[float]]:
    """Run workers in turn; return the milliseconds of each one's rounds, the first left out.

    Args:
        workers: Who takes part.
        runs: Timed rounds.
        burst: Runs of one worker in one round. From two on, the first one only wakes threads and
            fills caches, and the round counts as the median of the others: for single operators,
            that take less time than waking up.
        pause_s: Seconds between two workers.
    """
    times: dict[Key, list[float]] = {key: [] for key in workers}
    for number in range(runs + 1):
        for key, worker in workers.items():
            time.sleep(pause_s)
            ms = worker.run(burst)
            if number:
                times[key].append(float(np.median(ms[1:] or ms)))
    return times
