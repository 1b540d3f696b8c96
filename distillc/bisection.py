"""Where compiled numbers part from torch's: the smallest module that shows it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distillc.codegen.build.library import build_library
from distillc.codegen.dumps import Dumps
from distillc.data.metrics import TOLERANCE, largest_error
from distillc.errors import LoweringError, StorageError, TraceError
from distillc.frontend.calls import Bound, Call, record_calls
from distillc.frontend.trace import export_program
from distillc.network import Network
from distillc.runtime.devices import get_device
from distillc.targets.base import Target, get_target
from distillc.workdir import write_tensors, write_text, write_whole


@dataclass(frozen=True)
class Culprit:
    """The smallest module whose compiled code differs from torch.

    Attributes:
        path: Its qualified name, `""` for the network itself.
        kind: Its class.
        shape: Shape of its input.
        error: Largest difference from torch, over the largest value where that is above 1.
        whole_error: The same of the whole network.
        reproduction: A folder with `reproduce.py`, which shows the difference again.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    error: float
    whole_error: float
    reproduction: Path


def bisect(
    network: Network,
    folder: Path,
    target: str | Target = "host",
    tolerance: float = TOLERANCE,
    dump_dir: Path | None = None,
) -> Culprit | None:
    """Find out which module makes a compiled network differ from torch.

    1. The network is compiled and run on random numbers; one that agrees has no culprit.
    2. Then the modules inside are, in the order of their calls, each by itself on what it was
       given; the first that differs takes the network's place.
    3. Where none inside differs, or none can be compiled by itself, the module is the smallest.

    Args:
        network: With its decisions, at its size.
        folder: Where the reproduction goes; it may not hold one already, which may be changed.
        target: A target or its name; its first device runs the code.
        tolerance: The largest difference that is none.
        dump_dir: Folder for every module that is compiled after each stage of code generation, in
            a folder of its name, `network` for all.

    Returns:
        The culprit, None where the network agrees with torch.

    Raises:
        TraceError: The network cannot be exported.
        LoweringError: The network cannot be compiled.
        DeviceError: Compiled code cannot be run.
        StorageError: The reproduction cannot be written, or there is one.
    """
    chosen = get_target(target)
    _refuse_taken(folder)
    module = network.hybrid()
    image = torch.rand(network.input_shape, generator=torch.Generator().manual_seed(0))
    paths = [path for path, _ in module.named_modules() if path]
    calls = record_calls(module, paths, image)
    dumps = Dumps(dump_dir)
    whole = error = _error(module, image, chosen, dumps.inside("network"))
    if error <= tolerance:
        return None
    path, inner, x = "", module, image
    while found := _first_that_differs(module, path, calls, chosen, tolerance, dumps):
        path, error = found
        inner, x = Bound(module.get_submodule(path), calls[path]).eval(), calls[path].given
    _write_reproduction(folder, inner, x, chosen)
    kind = type(module.get_submodule(path)).__name__
    return Culprit(path, kind, tuple(x.shape), error, whole, folder)


def _first_that_differs(
    network: nn.Module,
    path: str,
    calls: Mapping[str, Call],
    target: Target,
    tolerance: float,
    dumps: Dumps,
) -> tuple[str, float] | None:
    for inside in _called(network.get_submodule(path), path, calls):
        bound = Bound(network.get_submodule(inside), calls[inside]).eval()
        try:
            error = _error(bound, calls[inside].given, target, dumps.inside(inside))
        except (TraceError, LoweringError):
            continue  # rule 3
        if not error <= tolerance:  # NaN differs too
            return inside, error
    return None


def _called(module: nn.Module, path: str, calls: Mapping[str, Call]) -> Iterator[str]:
    """Yield the outermost modules inside a module that were called; lists of modules are not."""
    for name, child in module.named_children():
        inside = f"{path}.{name}" if path else name
        if inside in calls:
            yield inside
        else:
            yield from _called(child, inside, calls)


@torch.no_grad()
def _error(module: nn.Module, x: Tensor, target: Target, dumps: Dumps) -> float:
    """Compile a module, run it on its input, and return how far it is from torch."""
    wanted = module(x)
    with tempfile.TemporaryDirectory(prefix="distillc-bisect-") as folder:
        library = Path(folder) / "model.so"
        program = export_program(module, tuple(x.shape))
        info = build_library(program, target, library, dumps=dumps)
        device = get_device(target.devices[0])
        given, _ = device.run([library], x.numpy(), info.output_shape, threads=1)
    return largest_error(torch.from_numpy(given), wanted)


FILES = ("module.pt2", "input.safetensors", "reproduce.py")


def _refuse_taken(folder: Path) -> None:
    if taken := [name for name in FILES if os.path.lexists(folder / name)]:
        raise StorageError(
            f"the folder of the reproduction holds {', '.join(taken)} already",
            where=str(folder),
            hint="choose another folder with --out, or move these away",
        )


def _write_reproduction(folder: Path, module: nn.Module, x: Tensor, target: Target) -> None:
    program = export_program(module, tuple(x.shape))
    write_whole(folder / "module.pt2", lambda path: torch.export.save(program, path))
    write_tensors(folder / "input.safetensors", {"x": x})
    write_text(folder / "reproduce.py", _TEXT.format(target=target.name, device=target.devices[0]))


_TEXT = '''\
"""Compile module.pt2 for {target} and compare it with torch on input.safetensors."""

from pathlib import Path

import torch

from distillc.codegen.build.library import build_library
from distillc.codegen.dumps import Dumps
from distillc.frontend.programs import read_program
from distillc.runtime.devices import get_device
from distillc.targets.base import get_target
from distillc.workdir import read_tensors

HERE = Path(__file__).parent
program = read_program(HERE / "module.pt2")
x = read_tensors(HERE / "input.safetensors")["x"]
info = build_library(program, get_target("{target}"), HERE / "model.so")
y, _ = get_device("{device}").run([HERE / "model.so"], x.numpy(), info.output_shape, threads=1)
print(program.graph)
print("largest difference:", float((torch.from_numpy(y) - program.module()(x)).abs().max()))
'''
