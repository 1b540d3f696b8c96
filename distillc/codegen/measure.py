"""How long modules take on this machine, as compiled code."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from distillc.codegen.compile import build_library
from distillc.frontend.trace import export_program
from distillc.runtime import native
from distillc.runtime.benchmark import Stats, time_libraries
from distillc.targets.base import get_target


def time_modules(
    modules: Sequence[nn.Module],
    shape: tuple[int, ...],
    threads: int,
    runs: int = 20,
    records: Path | None = None,
) -> list[Stats]:
    """Compile modules for this machine and time them in turn, in one process.

    Args:
        modules: Each takes one float32 tensor of `shape`.
        shape: Shape of the input.
        threads: Threads.
        runs: Timed rounds; each runs every module once.
        records: A file of tuning records beside the shipped and the user's own.

    Raises:
        LoweringError: A module cannot be compiled.
        DeviceError: Running fails.
    """
    target = get_target("host")
    with tempfile.TemporaryDirectory(prefix="distillc-measure-") as folder:
        paths = [Path(folder) / f"{index}.so" for index in range(len(modules))]
        built = [
            build_library(export_program(module, shape), target, path, records)
            for module, path in zip(modules, paths, strict=True)
        ]
        return time_libraries(paths, shape, built[0].output_shape, threads=threads, runs=runs)


@functools.cache
def generator_digest() -> str:
    """Return 16 hex digits that name the source of the code generator: what times depend on."""
    found = hashlib.sha256()
    folder = Path(__file__).parent
    for path in (*sorted(folder.rglob("*.py")), *sorted(native.FOLDER.glob("*.[ch]"))):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]
