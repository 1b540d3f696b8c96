"""Single kernels of a compiled library: timed in turn and compared, or counted under emulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillc.runtime.devices import get_device, get_local_device
from distillc.runtime.devices.base import KERNELS_S
from distillc.runtime.instruction_count import InstructionCount, difference, execute
from distillc.runtime.runner import start_runner

Shapes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class KernelRuns:
    """What the runner printed.

    Attributes:
        ms: Milliseconds of each run of each kernel.
        repeated: Rounds that were run again because the device was throttled or busy.
        errors: The largest difference of a kernel's outputs from the first one's, relative to the
            largest value; 1 where one is a number and the other is not.
    """

    ms: tuple[tuple[float, ...], ...]
    repeated: int
    errors: tuple[float, ...]


def time_kernels(
    library: Path,
    names: Sequence[str],
    shapes: Shapes,
    outputs: int,
    *,
    device: str,
    threads: int,
    runs: int,
    warmup: int = 1,
) -> KernelRuns:
    """Run kernels that take the same operands in turn, round after round, on random numbers.

    Args:
        library: Compiled kernels: a library, or a program for a device that runs these.
        names: The kernels.
        shapes: Shapes of the float32 operands.
        outputs: How many of the operands, the last, are written.
        device: The device that runs them.
        threads: Threads that share each kernel, the caller's among them.
        runs: Timed rounds; each runs every kernel once.
        warmup: Rounds that are not timed.

    Raises:
        DeviceError: Running fails.
    """
    words = _words(names, shapes, outputs, warmup, runs)
    return _runs(get_device(device).run_kernels(library, words, threads))


def count_kernels(
    library: Path, names: Sequence[str], shapes: Shapes, outputs: int, *, device: str
) -> tuple[InstructionCount, tuple[float, ...]]:
    """Count the instructions of one run of each kernel on one thread; see `time_kernels`.

    Returns:
        The counts, by kernel, and the `errors` of `KernelRuns`.

    Raises:
        DeviceError: qemu is missing or does not fit, or running fails.
    """
    command, environment = get_local_device(device).launcher(threads=1)
    errors: list[tuple[float, ...]] = []

    def run(times: int) -> InstructionCount:
        def start(words: Sequence[str]) -> None:
            # The comparison at the end runs every kernel once.
            more = ["--kernels", str(library.resolve())]
            more += _words(names, shapes, outputs, times - 1, 0)
            found = start_runner([*words, *more], environment, library, KERNELS_S)
            errors.append(_runs(found).errors)

        return InstructionCount(library, execute(command, start))

    once, twice = run(1), run(2)
    return InstructionCount(library, difference(twice.process, once.process)), errors[0]


def _words(names: Sequence[str], shapes: Shapes, outputs: int, warmup: int, runs: int) -> list[str]:
    text = ";".join(",".join(map(str, shape)) for shape in shapes)
    return [text, str(outputs), str(warmup), str(runs), *names]


def _runs(data: Mapping[str, Any]) -> KernelRuns:
    ms = tuple(tuple(each) for each in data["ms"])
    return KernelRuns(ms, data["repeated"], tuple(data["errors"]))
