"""An exported program to a shared library: lower, schedule, build, link."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tvm
from torch.export import ExportedProgram
from tvm import tirx

from distillc.codegen.link import linker
from distillc.codegen.lower import lower
from distillc.codegen.memory import planned_bytes
from distillc.codegen.records import load_records
from distillc.codegen.schedule import schedule_module
from distillc.errors import DistillcError, LoweringError
from distillc.frontend.trace import image_shapes
from distillc.targets.base import Target
from distillc.workdir import write_whole


@dataclass(frozen=True)
class LibraryInfo:
    """What was built.

    Attributes:
        input_shape: (1, C, H, W).
        output_shape: (1, C', H', W').
        kernels: Number of distinct kernels.
        planned_bytes: Storage that activations share, by the static memory plan.
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
) -> LibraryInfo:
    """Compile a program to a shared library at `path`.

    The library's entry is the Relax VM's `main`: one (1, C, H, W) float32 tensor in, one out;
    weights are inside.

    Args:
        program: Exported by `distillc.frontend.trace.export_program`.
        target: What to compile for.
        path: The library.
        records: A file of tuning records beside the shipped and the user's own.
        precision: `"fp32"` or `"fp16"`, of the arithmetic inside.

    Raises:
        LoweringError: An operator cannot be imported, or building or linking fails.
        StorageError: `path` cannot be written.
    """
    start = time.perf_counter()
    try:
        mod = lower(program, target, precision)
        mod = schedule_module(mod, target, load_records(target, records))
        export_library(mod, target, path)
    except DistillcError:
        raise
    except Exception as error:  # TVM raises anything
        raise _build_error(error, target) from error
    kernels = sum(isinstance(function, tirx.PrimFunc) for function in mod.functions.values())
    return LibraryInfo(
        *image_shapes(program),
        kernels,
        planned_bytes(mod),
        round(time.perf_counter() - start, 2),
    )


def tvm_target(target: Target) -> tvm.target.Target:
    """Return TVM's description of a target."""
    fields: dict[str, object] = {"kind": "llvm", "mtriple": target.triple, "mcpu": target.cpu}
    if target.features:
        fields["mattr"] = list(target.features)
    return tvm.target.Target(fields)


def export_library(mod: tvm.IRModule, target: Target, path: Path) -> None:
    """Compile and link a scheduled module to a shared library.

    Raises:
        LoweringError: Building or linking fails.
        StorageError: `path` cannot be written.
    """

    def export(temporary: Path) -> None:
        # TVM insists on the suffix.
        library = temporary.with_name(temporary.name + ".so")
        try:
            executable.export_library(str(library), fcompile=linker(target))
            library.replace(temporary)
        finally:
            library.unlink(missing_ok=True)

    try:
        executable = tvm.compile(mod, tvm_target(target))
        write_whole(path, export)
    except DistillcError:
        raise
    except Exception as error:  # TVM raises anything
        raise _build_error(error, target) from error


def _build_error(error: Exception, target: Target) -> LoweringError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return LoweringError(
        f"building for {target.name} failed: {reason[:300]}",
        hint="run with --debug for the compiler's own trace, and report the network",
    )
