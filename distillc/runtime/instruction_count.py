"""Executed instructions of a program under qemu's user-mode emulation: counts without a device.

A small plugin (`instruction_count.c`, compiled by zig on first use and kept in the user's cache)
counts how often each block of machine code ran; the rest is done here. The counts of one inference
are those of a process with one inference more less those of a process with one less, so loading
and first allocations drop out.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from distillc.errors import DeviceError
from distillc.runtime.aarch64_classes import by_class
from distillc.runtime.devices import get_local_device
from distillc.runtime.elf import function_at, read_functions
from distillc.runtime.runner import build_runner, run_models
from distillc.sealed import cached_file
from distillc.zig import HINT, run_zig

SOURCE = Path(__file__).with_name("instruction_count.c")
FLAGS = ("-O2", "-shared", "-fPIC")


@dataclass(frozen=True)
class Instruction:
    """One machine instruction and how often it ran.

    Attributes:
        file: Path of the file that holds it, empty for code made at run time.
        offset: Where it stands in the file, bytes; its address for code made at run time.
        code: Its bytes.
        count: How often it ran.
    """

    file: str
    offset: int
    code: bytes
    count: int


@dataclass(frozen=True)
class InstructionCount:
    """Executed instructions of one inference on one thread.

    Attributes:
        library: The compiled network.
        process: Of the whole process: kernels, threads, the C library. Repeatable to a few
            instructions, the network's own code to the last one.
    """

    library: Path
    process: tuple[Instruction, ...]

    @cached_property
    def kernels(self) -> dict[str, tuple[Instruction, ...]]:
        """The network's own code by kernel, in the order of offsets."""
        file, known = str(self.library.resolve()), read_functions(self.library)
        found: dict[str, list[Instruction]] = {}
        for each in self.process:
            if each.file == file:
                found.setdefault(function_at(known, each.offset), []).append(each)
        return {name: tuple(code) for name, code in found.items()}

    @property
    def code(self) -> tuple[Instruction, ...]:
        """The network's own code."""
        return tuple(each for kernel in self.kernels.values() for each in kernel)


def total(code: Iterable[Instruction]) -> int:
    """Return the number of executed instructions."""
    return sum(each.count for each in code)


def classes(code: Iterable[Instruction]) -> dict[str, int]:
    """Return the number of executed aarch64 instructions by class."""
    return by_class((each.code, each.count) for each in code)


def count_instructions(
    library: Path,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    device: str = "emulator",
) -> InstructionCount:
    """Count the executed instructions of one inference of a compiled network, on one thread.

    Args:
        library: The compiled network.
        input_shape: Shape of its float32 input.
        output_shape: Shape of its float32 output.
        device: `emulator` for aarch64 code, `host` for this machine's, which is emulated too (qemu
            7 and 8 know no AVX-512).

    Raises:
        DeviceError: qemu is missing or does not fit, or the network does not run.
    """
    command, environment = get_local_device(device).launcher(threads=1)
    if device == "host":
        # The usual runner is compiled for this very CPU, of which qemu may lack instructions.
        command = [str(build_runner(f"{platform.machine()}-linux-gnu.2.28"))]
    x = np.random.default_rng(0).random(tuple(input_shape), dtype=np.float32)

    def run(inferences: int) -> tuple[Instruction, ...]:
        # The runner's own last run counts as one. None is timed: times are printed, and how many
        # instructions that takes is chance.
        return execute(
            command,
            lambda words: run_models(
                words,
                environment,
                [library],
                x,
                output_shape,
                warmup=inferences - 1,
                runs=0,
                timeout_s=get_local_device("emulator").timeout_s,
            ),
        )

    return InstructionCount(library, difference(run(2), run(1)))


def execute(
    command: Sequence[str], run: Callable[[Sequence[str]], object]
) -> tuple[Instruction, ...]:
    """Run a program of one thread under qemu, and return what it executed, in order.

    Args:
        command: What would run it, with qemu in front unless it is a program of this machine.
        run: Runs the command that it is given, and raises an error where that fails.

    Raises:
        DeviceError: qemu is missing, or its plugin interface is not the one that is used here.
    """
    words = list(command)
    if not Path(words[0]).name.startswith("qemu-"):
        words = [f"qemu-{platform.machine()}", "-cpu", "max", *words]
    _check_qemu(words[0])
    with tempfile.TemporaryDirectory(prefix="distillc-count-") as folder:
        dump = Path(folder) / "counts"
        run([words[0], "-plugin", f"{_plugin()},out={dump}", *words[1:]])
        return read_counts(dump)


def difference(more: Sequence[Instruction], less: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """Return what one execution ran more often than another, in order."""
    before = {(each.file, each.offset): each.count for each in less}
    left = (
        replace(each, count=each.count - before.get((each.file, each.offset), 0)) for each in more
    )
    return tuple(each for each in left if each.count)


def read_counts(dump: Path) -> tuple[Instruction, ...]:
    """Read what the plugin wrote; instructions in the order of files and offsets."""
    counts: Counter[tuple[str, int, bytes]] = Counter()
    for line in dump.read_text().splitlines():
        words, _, file = line.partition("\t")
        count, place, *codes = words.split()
        offset = int(place, 16)
        for code in map(bytes.fromhex, codes):
            counts[file, offset, code] += int(count)
            offset += len(code)
    # x86 instructions that cross a page are listed twice: cut, at the end of a block that stops
    # before them, and whole at the start of the next. Code and a longer one sort in this order.
    whole = {place[:2]: (place[2], count) for place, count in sorted(counts.items())}
    return tuple(Instruction(*place, *rest) for place, rest in whole.items())


def _check_qemu(program: str) -> None:
    path = shutil.which(program)
    if not path:
        raise DeviceError(
            f"{program} is missing", hint="install it with: sudo apt-get install qemu-user"
        )
    text = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    version = re.search(r"version (\d+)\.(\d+)", text)
    if not version or not (6, 0) <= (int(version[1]), int(version[2])) < (9, 0):
        found = text.splitlines()[0] if text else "no version"
        raise DeviceError(
            f"the counting plugin does not fit this qemu: {found}",
            where=path,
            hint="it is written for qemu 6.0 to 8.2, as in Debian 12 and Ubuntu 24.04",
        )


def _plugin() -> Path:
    """Return the compiled plugin."""

    def build(temporary: Path) -> None:
        if reason := run_zig("cc", *FLAGS, "-o", temporary, SOURCE):
            raise DeviceError("the counting plugin does not compile", where=reason, hint=HINT)

    key = SOURCE.read_bytes() + " ".join((*FLAGS, platform.machine())).encode()
    return cached_file("instruction_count.so", key, build)
