"""What candidates for one kernel cost: milliseconds on a device, or cycles by the static model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar, Protocol

import tvm
from tvm import tirx

from distillc.codegen.compile import export_library
from distillc.codegen.static_cost import static_cost
from distillc.runtime.devices import get_device
from distillc.runtime.kernels import count_kernels, time_kernels
from distillc.targets.base import Target


@dataclass(frozen=True)
class Operands:
    """Shapes of a kernel's float32 operands, and how many of them, the last, it writes."""

    shapes: tuple[tuple[int, ...], ...]
    outputs: int


@dataclass(frozen=True)
class Costs:
    """Cost of each candidate, and how far its results are from the first one's (relative)."""

    values: tuple[float, ...]
    errors: tuple[float, ...]


class KernelCost(Protocol):
    """Prices scheduled kernels that compute the same.

    Attributes:
        unit: `ms` or `cycles`.
        blind: Knobs whose effect it cannot see.
    """

    unit: ClassVar[str]
    blind: ClassVar[frozenset[str]]

    def __call__(self, funcs: Sequence[tirx.PrimFunc], operands: Operands, rounds: int) -> Costs:
        """Build all in one library and return their costs; `rounds` runs of each, in turn.

        Raises:
            LoweringError: They cannot be built.
            DeviceError: They cannot be run.
        """


@dataclass(frozen=True)
class Measured:
    """Median milliseconds on a device, with the target's threads."""

    target: Target
    device: str
    unit: ClassVar[str] = "ms"
    blind: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, funcs: Sequence[tirx.PrimFunc], operands: Operands, rounds: int) -> Costs:
        """See `KernelCost`."""
        with tempfile.TemporaryDirectory(prefix="distillc-tune-") as folder:
            library, names = _build(funcs, self.target, Path(folder))
            found = time_kernels(
                library,
                names,
                operands.shapes,
                operands.outputs,
                device=self.device,
                threads=self.target.threads,
                runs=rounds,
            )
        return Costs(tuple(median(each) for each in found.ms), found.errors)


@dataclass(frozen=True)
class Modelled:
    """Cycles on one thread by `distillc.codegen.static_cost`: for CPUs without a device.

    Every load is a hit in the first-level cache there, so tiles for caches are left as they are.
    """

    target: Target
    device: str
    unit: ClassVar[str] = "cycles"
    blind: ClassVar[frozenset[str]] = frozenset({"chunk", "lines", "run", "width"})

    def __call__(self, funcs: Sequence[tirx.PrimFunc], operands: Operands, rounds: int) -> Costs:
        """See `KernelCost`; one run says all."""
        with tempfile.TemporaryDirectory(prefix="distillc-tune-") as folder:
            library, names = _build(funcs, self.target, Path(folder))
            count, errors = count_kernels(
                library, names, operands.shapes, operands.outputs, device=self.device
            )
            own = {name: code for name, code in count.kernels.items() if name in names}
        costs = static_cost(own, self.target)
        return Costs(tuple(costs[name].cycles for name in names), errors)


def choose_cost(target: Target, device: str) -> KernelCost:
    """Return what prices kernels of a target on a device: its clock where it has one.

    Raises:
        UsageError: No device has this name.
    """
    return (Measured if get_device(device).clock else Modelled)(target, device)


def _build(
    funcs: Sequence[tirx.PrimFunc], target: Target, folder: Path
) -> tuple[Path, tuple[str, ...]]:
    names = tuple(f"candidate{index}" for index in range(len(funcs)))
    named = {
        name: func.with_attr("global_symbol", name) for name, func in zip(names, funcs, strict=True)
    }
    library = folder / "candidates.so"
    export_library(tvm.IRModule(named), target, library)
    return library, names
