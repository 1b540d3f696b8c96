"""Threads of a library: equal numbers, several callers, cores."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from distillc.errors import DeviceError
from tests.c_api import Library
from tests.runtime.library.calls import BUSY, image


def test_threads_and_runs_do_not_change_the_numbers(path: Path) -> None:
    x = image()
    first = Library(path, 1).run(x)
    for threads in (2, 3, 7):
        library = Library(path, threads)
        for _ in range(20):
            np.testing.assert_array_equal(library.run(x), first)
        library.close()


def test_two_models_in_eight_threads(path: Path) -> None:
    models = [Library(path, threads=2) for _ in range(2)]
    inputs = [image(seed) for seed in range(8)]
    wanted = [Library(path, 1).run(x) for x in inputs]

    def ask(number: int) -> np.ndarray:
        while True:
            try:
                return models[number % 2].run(inputs[number])
            except DeviceError as error:
                if f"status {BUSY}" not in str(error):
                    raise

    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for found, one in zip(pool.map(ask, range(8)), wanted, strict=True):
                np.testing.assert_array_equal(found, one)


def test_times_of_the_steps(library: Library) -> None:
    steps = library.profile(image())
    assert len(steps) == library.info.kernels
    assert all(name and 0 < ms < 1000 for name, ms in steps)


def threads_of_this_process() -> set[int]:
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone lets threads move")
def test_workers_keep_off_the_core_of_their_caller(path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core leaves no choice")
    before = threads_of_this_process()
    library = Library(path, threads=2)
    (worker,) = threads_of_this_process() - before
    try:
        for core in sorted(cores)[:2]:
            os.sched_setaffinity(0, {core})
            library.run(image())
            assert os.sched_getaffinity(worker) == cores - {core}
    finally:
        os.sched_setaffinity(0, cores)
        library.close()


def test_more_threads_than_cores_may_run_anywhere(path: Path) -> None:
    cores = os.sched_getaffinity(0)
    before = threads_of_this_process()
    library = Library(path, threads=len(cores) + 1)
    library.run(image())
    workers = threads_of_this_process() - before
    assert len(workers) == len(cores)
    assert all(os.sched_getaffinity(worker) == cores for worker in workers)
    library.close()


@pytest.mark.parametrize("threads", [-1, 65])
def test_threads_that_make_no_sense(path: Path, threads: int) -> None:
    with pytest.raises(DeviceError, match=f"{threads} threads asked for, 1 to 64 are possible"):
        Library(path, threads)
