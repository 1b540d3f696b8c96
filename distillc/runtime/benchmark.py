"""Timing compiled networks, several in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distillc.checks import RUNS, THREADS, check_whole
from distillc.runtime.devices import get_device


@dataclass(frozen=True)
class Stats:
    """Latency of a compiled network over the timed runs.

    Attributes:
        median_ms: Milliseconds of the median run.
        p10_ms: Of the 10th percentile.
        p90_ms: Of the 90th.
        peak_bytes: Peak memory of the process.
        runs: Timed runs.
        threads: Threads that computed, the caller's among them.
        device: Name of the device that ran it, say `"host"` or `"adb:SERIAL"`.
        slowdown: Median of the last third of the runs over that of the first: what a device that
            gets warm loses.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    peak_bytes: int
    runs: int
    threads: int
    device: str
    slowdown: float


def summarise(ms: tuple[float, ...], peak_bytes: int, threads: int, device: str) -> Stats:
    """Return the statistics of a list of times."""
    low, median, high = (float(each) for each in np.percentile(ms, (10, 50, 90)))
    third = max(1, len(ms) // 3)
    slowdown = float(np.median(ms[-third:]) / np.median(ms[:third]))
    return Stats(median, low, high, peak_bytes, len(ms), threads, device, slowdown)


def time_libraries(
    libraries: Sequence[Path],
    input_shape: tuple[int, ...],
    output_shape: Sequence[int],
    device: str = "host",
    threads: int = 2,
    runs: int = 20,
    warmup: int = 3,
) -> list[Stats]:
    """Time compiled networks of equal input shape in turn on random input.

    They share one process and one thread pool. Memory is that of the process, so it says something
    only for a single network.

    Args:
        libraries: Compiled networks: libraries, or programs for a device that runs these.
        input_shape: Shape of their float32 input.
        output_shape: Shape of the first one's output.
        device: Name of the device that runs them.
        threads: How many threads they run with.
        runs: Timed rounds; each runs every network once.
        warmup: Rounds that are not timed.

    Raises:
        UsageError: Unknown device, or a count out of range.
        DeviceError: Running fails.
    """
    check_whole(RUNS, runs=runs)
    check_whole(THREADS, threads=threads)
    check_whole((0, RUNS[1]), warmup=warmup)
    x = np.random.default_rng(0).random(input_shape, dtype=np.float32)
    _, timing = get_device(device).run(
        libraries, x, output_shape, threads=threads, warmup=warmup, runs=runs
    )
    return [summarise(ms, timing.peak_bytes, threads, device) for ms in timing.ms]
