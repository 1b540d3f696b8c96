"""Timing bundles against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distillc.checks import RUNS, THREADS, check_whole
from distillc.errors import UsageError
from distillc.runtime.devices import get_device

if TYPE_CHECKING:
    from distillc.runtime.bundle import Bundle


@dataclass(frozen=True)
class Stats:
    """Latency of a bundle over the timed runs.

    Attributes:
        median_ms: Milliseconds of the median run.
        p10_ms: Of the 10th percentile.
        p90_ms: Of the 90th.
        peak_bytes: Peak memory of the process.
        runs: Timed runs.
        threads: Threads.
        device: Where.
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


def compare(
    bundles: Sequence[Bundle],
    device: str = "host",
    threads: int = 2,
    runs: int = 20,
    warmup: int = 3,
) -> list[Stats]:
    """Time bundles of equal input shape in turn, in one process with one thread pool.

    Memory is that of the process, so it says something only for a single bundle.

    Args:
        bundles: What to time; each round runs every one once.
        device: Where.
        threads: Threads.
        runs: Timed rounds.
        warmup: Rounds that are not timed.

    Raises:
        UsageError: A bundle was built for something this device is not, shapes differ, or a count
            is too small.
        DeviceError: Running fails.
    """
    check_whole(RUNS, runs=runs)
    check_whole(THREADS, threads=threads)
    check_whole((0, RUNS[1]), warmup=warmup)
    chosen = get_device(device)
    for bundle in bundles:
        if not chosen.programs and device not in bundle.facts.devices:
            raise UsageError(
                f"a bundle for {bundle.facts.target} does not run on {device}",
                where=str(bundle.path),
                hint="convert with --target host to time it here",
            )
    shapes = {bundle.facts.input_shape for bundle in bundles}
    if not shapes:
        raise UsageError("there are no bundles to time")
    if len(shapes) > 1:
        raise UsageError(f"bundles of different input shapes cannot be compared: {sorted(shapes)}")
    return time_libraries(
        [bundle.file_for(chosen) for bundle in bundles],
        shapes.pop(),
        bundles[0].facts.output_shape,
        device,
        threads,
        runs,
        warmup,
    )


def time_libraries(
    libraries: Sequence[Path],
    input_shape: tuple[int, ...],
    output_shape: Sequence[int],
    device: str = "host",
    threads: int = 2,
    runs: int = 20,
    warmup: int = 3,
) -> list[Stats]:
    """Time compiled networks of equal input shape in turn on random input; see `compare`.

    Args:
        libraries: Compiled networks: libraries, or programs for a device that runs these.
        input_shape: Shape of their float32 input.
        output_shape: Shape of the first one's output.
        device: Where.
        threads: Threads.
        runs: Timed rounds.
        warmup: Rounds that are not timed.

    Raises:
        DeviceError: Running fails.
    """
    x = np.random.default_rng(0).random(input_shape, dtype=np.float32)
    _, timing = get_device(device).run(
        libraries, x, output_shape, threads=threads, warmup=warmup, runs=runs
    )
    return [summarise(ms, timing.peak_bytes, threads, device) for ms in timing.ms]
