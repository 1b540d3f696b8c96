"""An exported program to a shared library: lower, schedule, build, link."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tvm
from torch.export import ExportedProgram

from distillc.codegen.build.emit import (
    WEIGHTS,
    NetworkInfo,
    emit_kernels,
    emit_network,
    emit_table,
    emit_weights,
)
from distillc.codegen.build.link import Artifact, link
from distillc.codegen.build.plan import Plan, plan_network, plan_text
from distillc.codegen.build.self_check import SelfCheck, emit_check
from distillc.codegen.dumps import NONE, Dumps
from distillc.codegen.schedule.records import load_records
from distillc.codegen.stages import compile_kernels
from distillc.errors import compiler_errors
from distillc.frontend.trace import image_shapes
from distillc.runtime.native import KERNEL_PROGRAM, KERNELS, MODEL, PROGRAM
from distillc.runtime.precision import get_precision
from distillc.targets.base import Target
from distillc.workdir import storage_errors

_ROOM = 4 << 20
"""Bytes that kernels of a network may take."""

EXPORTS = "distillc_model_*; distillc_last_error"
"""What others see of a library: the functions of `distillc.h`."""


@dataclass(frozen=True)
class LibraryInfo:
    """What was built.

    Attributes:
        input_shape: (1, C, H, W).
        output_shape: (1, C', H', W').
        kernels: Number of distinct kernels.
        planned_bytes: Storage that input, output and activations share, by the static plan.
        seconds: Time it took.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernels: int
    planned_bytes: int
    seconds: float


def build_library(
    program: ExportedProgram,
    target: Target,
    path: Path,
    records: Path | None = None,
    precision: str = "fp32",
    name: str = "network",
    android: Path | None = None,
    bench: tuple[Path, SelfCheck] | None = None,
    weights: Path | None = None,
    dumps: Dumps = NONE,
) -> LibraryInfo:
    """Compile a program to a shared library at `path`.

    It has the functions of `distillc/runtime/native/distillc.h`, one (C, H, W) image in, one out,
    and needs nothing but the C library.

    Args:
        program: Exported by `distillc.frontend.trace.export_program`.
        target: What to compile for.
        path: The library.
        records: A file of tuning records beside the shipped and the user's own.
        precision: See `distillc.runtime.precision`.
        name: What the library calls the network.
        android: Where a library for Android goes, of the same kernels.
        bench: Where the program `native/bench.c` goes, and what it checks itself by.
        weights: Where the weights of the libraries go; by default they are inside. The program has
            its own.
        dumps: What is shown of the stages, the kernels and the plan.

    Raises:
        Stopped: `dumps` says so; nothing is built.
        LoweringError: An operator cannot be imported, or building or linking fails.
        StorageError: `path` cannot be written.
    """
    start = time.perf_counter()
    with _building(target, path) as folder:
        parts = build_parts(program, target, folder, records, precision, name, dumps)
        whole = (*parts.files, emit_weights(folder))
        files = parts.files if weights else whole
        with ThreadPoolExecutor() as threads:  # which wait for zig
            links = [threads.submit(link, path, target, files, MODEL, EXPORTS)]
            if android:
                form = Artifact.ANDROID
                links.append(threads.submit(link, android, target, files, MODEL, EXPORTS, form))
            if bench:
                files, form = (*whole, emit_check(bench[1], folder)), Artifact.PROGRAM
                links.append(threads.submit(link, bench[0], target, files, PROGRAM, EXPORTS, form))
        for each in links:
            each.result()
        if weights:
            with storage_errors(weights):
                shutil.copy(parts.weights, weights)
    return LibraryInfo(
        *image_shapes(program),
        len({call.kernel for call in parts.plan.calls}),
        parts.plan.arena_bytes,
        round(time.perf_counter() - start, 2),
    )


@dataclass(frozen=True)
class Parts:
    """What a network's library is linked from.

    Attributes:
        files: Kernels and plan; `emit_weights` adds the weights.
        weights: The constants as they are stored.
        plan: The plan.
    """

    files: tuple[Path, ...]
    weights: Path
    plan: Plan


def build_parts(
    program: ExportedProgram,
    target: Target,
    folder: Path,
    records: Path | None = None,
    precision: str = "fp32",
    name: str = "network",
    dumps: Dumps = NONE,
) -> Parts:
    """Compile a program to objects and sources in a folder; see `build_library`.

    Raises:
        LoweringError: An operator cannot be imported, or building fails.
    """
    numbers = get_precision(precision)
    known = load_records(target, records)
    mod = compile_kernels(program, target, known, numbers.arithmetic, dumps)
    plan = plan_network(mod)
    dumps.write("plan.txt", lambda: plan_text(plan))
    objects = folder / "kernels.o"
    emit_kernels(mod, tvm_target(target), objects)
    info = NetworkInfo(name, target.name, target.threads)
    source = emit_network(plan, info, folder, numbers.half_weights)
    return Parts((objects, source), folder / WEIGHTS, plan)


def tvm_target(target: Target) -> tvm.target.Target:
    """Return TVM's description of a target."""
    fields: dict[str, object] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu}
    if target.features:
        fields["mattr"] = list(target.features)
    return tvm.target.Target(fields)


def build_kernels(
    mod: tvm.IRModule, target: Target, path: Path, form: Artifact = Artifact.LIBRARY
) -> None:
    """Compile and link the scheduled kernels of a module, to be run one by one.

    A library is for `native/runner.c`, a program is `native/kernel_bench.c`.

    Raises:
        LoweringError: Building or linking fails.
        StorageError: `path` cannot be written.
    """
    with _building(target, path) as folder:
        objects = folder / "kernels.o"
        emit_kernels(mod, tvm_target(target), objects)
        if form is Artifact.PROGRAM:
            table = emit_table(mod, folder)
            link(path, target, [objects, table], KERNEL_PROGRAM, EXPORTS, form)
        else:
            link(path, target, [objects], KERNELS, "__tvm_ffi_*; dc_pool_*", form)


@contextmanager
def _building(target: Target, path: Path) -> Iterator[Path]:
    """Give a folder for parts of the library at `path`; what fails there is one of our errors."""
    with (
        compiler_errors(f"building for {target.name} failed"),
        storage_errors(path),
        tempfile.TemporaryDirectory(prefix="distillc-build-") as folder,
    ):
        if shutil.disk_usage(folder).free < _ROOM:
            # LLVM ends the process when its file finds no space.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield Path(folder)
