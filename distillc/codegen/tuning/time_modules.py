"""How long modules take on a device, as compiled code."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from distillc.codegen.build.library import build_library
from distillc.codegen.build.self_check import self_check
from distillc.frontend.trace import export_program
from distillc.runtime import native
from distillc.runtime.benchmark import Stats, time_libraries
from distillc.runtime.devices import get_device
from distillc.runtime.precision import get_precision
from distillc.targets.base import Target, get_target

_TOKENS = 3
"""Axes of tokens, (B, H W, C) or (H W, B, C)."""


class _OnImage(nn.Module):
    """A module on tokens, which are given as an image of one channel: devices know only images."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.module(x[0])
        return result[None]


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *shape) if len(shape) == _TOKENS else shape


@dataclass(frozen=True)
class Meter:
    """Where modules are timed.

    Attributes:
        device: Name of the device.
        target: What they are compiled for.
    """

    device: str = "host"
    target: str | Target = "host"

    def build(
        self, module: nn.Module, shape: tuple[int, ...], path: Path, records: Path | None = None
    ) -> tuple[int, ...]:
        """Compile a module to what the device runs; return the shape of its output.

        Args:
            module: Takes one float32 tensor.
            shape: Its shape: (1, C, H, W), (1, H, W, C), or that of tokens, three axes.
            path: The library, or the program.
            records: A file of tuning records beside the shipped and the user's own.

        Raises:
            LoweringError: It cannot be compiled.
        """
        if len(shape) == _TOKENS:
            module, shape = _OnImage(module), _image(shape)
        program, target = export_program(module, shape), get_target(self.target)
        if not get_device(self.device).programs:
            return build_library(program, target, path, records).output_shape
        check = self_check(module, shape, get_precision("fp32").max_error)
        with tempfile.TemporaryDirectory(prefix="distillc-measure-") as folder:
            library = Path(folder) / "model.so"
            return build_library(
                program, target, library, records, bench=(path, check)
            ).output_shape

    def time(
        self,
        paths: Sequence[Path],
        shape: tuple[int, ...],
        output: tuple[int, ...],
        threads: int,
        runs: int,
        warmup: int = 3,
    ) -> list[Stats]:
        """Time what `build` made in turn; see `distillc.runtime.benchmark.time_libraries`."""
        shapes = _image(shape), _image(output)
        return time_libraries(paths, *shapes, self.device, threads, runs, warmup)


HERE = Meter()
"""This machine."""


def time_modules(
    modules: Sequence[nn.Module],
    shape: tuple[int, ...],
    threads: int,
    runs: int = 20,
    records: Path | None = None,
    meter: Meter = HERE,
) -> list[Stats]:
    """Compile modules and time them in turn.

    Args:
        modules: Each takes one float32 tensor of `shape`.
        shape: Shape of the input.
        threads: Threads that every module runs on.
        runs: Timed rounds; each runs every module once.
        records: A file of tuning records beside the shipped and the user's own.
        meter: What builds and times them: a device and its target.

    Raises:
        LoweringError: A module cannot be compiled.
        DeviceError: Running fails.
    """
    with tempfile.TemporaryDirectory(prefix="distillc-measure-") as folder:
        paths = [Path(folder) / f"{index}.so" for index in range(len(modules))]
        outputs = [
            meter.build(module, shape, path, records)
            for module, path in zip(modules, paths, strict=True)
        ]
        return meter.time(paths, shape, outputs[0], threads, runs)


@functools.cache
def generator_digest() -> str:
    """Return 16 hex digits that name the source of the code generator: what times depend on."""
    found = hashlib.sha256()
    folder = Path(__file__).parent
    for path in (*sorted(folder.rglob("*.py")), *sorted(native.FOLDER.glob("*.[ch]"))):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]
