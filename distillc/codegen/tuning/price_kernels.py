"""What scheduled kernels cost: milliseconds on a device, or cycles by the static model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar, Protocol

import tvm
from tvm import tirx

from distillc.codegen.build.library import build_kernels
from distillc.codegen.build.link import Artifact
from distillc.codegen.tuning.static_cost import static_cost
from distillc.runtime.devices import get_device
from distillc.runtime.devices.base import Device
from distillc.runtime.instruction_count import Instruction
from distillc.runtime.kernels import count_kernels, time_kernels
from distillc.targets.base import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Operands:
    """Shapes of a kernel's float32 operands, and how many of them, the last, it writes."""

    shapes: tuple[tuple[int, ...], ...]
    outputs: int


@dataclass(frozen=True)
class Group:
    """Scheduled kernels that compute the same."""

    funcs: tuple[tirx.PrimFunc, ...]
    operands: Operands


@dataclass(frozen=True)
class Costs:
    """Cost of each kernel of a group, and how far its results are from the first's (relative)."""

    values: tuple[float, ...]
    errors: tuple[float, ...]


class KernelPricer(Protocol):
    """Prices scheduled kernels.

    Attributes:
        unit: `ms` or `cycles`.
        code_only: Whether it sees the instructions only, not what caches and threads do to them.
    """

    unit: ClassVar[str]
    code_only: ClassVar[bool]

    def __call__(self, groups: Sequence[Group], rounds: int) -> list[Costs]:
        """Build all groups in one library; run each group's kernels in turn, `rounds` times.

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
    code_only: ClassVar[bool] = False

    def __call__(self, groups: Sequence[Group], rounds: int) -> list[Costs]:
        """See `KernelPricer`."""
        found = []
        with _built(groups, self.target, get_device(self.device)) as (library, names):
            for group, own in zip(groups, names, strict=True):
                runs = time_kernels(
                    library,
                    own,
                    group.operands.shapes,
                    group.operands.outputs,
                    device=self.device,
                    threads=self.target.threads,
                    runs=rounds,
                )
                if runs.repeated:
                    log.info("%s was slow for %d of %d rounds", self.device, runs.repeated, rounds)
                found.append(Costs(tuple(median(each) for each in runs.ms), runs.errors))
        return found


@dataclass(frozen=True)
class Modelled:
    """Cycles on one thread by `distillc.codegen.tuning.static_cost`: for CPUs without a device.

    Every load is a hit in the first-level cache there, so tiles for caches are left as they are.
    """

    target: Target
    device: str
    unit: ClassVar[str] = "cycles"
    code_only: ClassVar[bool] = True

    def __call__(self, groups: Sequence[Group], rounds: int) -> list[Costs]:
        """See `KernelPricer`; one run says all."""
        kernels: dict[str, Sequence[Instruction]] = {}
        errors = []
        with _built(groups, self.target, get_device(self.device)) as (library, names):
            for group, own in zip(groups, names, strict=True):
                operands = group.operands
                count, found = count_kernels(
                    library, own, operands.shapes, operands.outputs, device=self.device
                )
                kernels |= {name: count.kernels[name] for name in own}
                errors.append(found)
        costs = static_cost(kernels, self.target)
        return [
            Costs(tuple(costs[name].cycles for name in own), found)
            for own, found in zip(names, errors, strict=True)
        ]


def choose_pricer(target: Target, device: str) -> KernelPricer:
    """Return what prices kernels of a target on a device: its clock where it has one.

    Raises:
        UsageError: No device has this name.
    """
    return (Measured if get_device(device).clock else Modelled)(target, device)


@contextmanager
def _built(
    groups: Sequence[Group], target: Target, device: Device
) -> Iterator[tuple[Path, list[list[str]]]]:
    """Build groups together; yield the file and the names of each group's kernels in it."""
    names = [
        [f"kernel{number}_{index}" for index in range(len(group.funcs))]
        for number, group in enumerate(groups)
    ]
    named = {
        name: func.with_attr("global_symbol", name)
        for group, own in zip(groups, names, strict=True)
        for name, func in zip(own, group.funcs, strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="distillc-tune-") as folder:
        path = Path(folder) / "kernels"
        form = Artifact.PROGRAM if device.programs else Artifact.LIBRARY
        build_kernels(tvm.IRModule(named), target, path, form)
        yield path, names
