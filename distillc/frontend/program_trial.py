"""A stranger's exported program, tried before it is believed: does it do what it says?

To be run in a process of its own (`distillc.sandbox`): what an operator does with wild numbers
shows when it runs.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node

from distillc.errors import CheckpointError, reason
from distillc.frontend.programs import read_program
from distillc.frontend.trace import scale_of
from distillc.sandbox import ProcessLimits

MEMORY = 3 * 2**30
"""Bytes that a program may take beside its file."""


def program_limits(path: Path) -> ProcessLimits:
    """Return what a trial may take: a graph takes 10 s a megabyte to load, and some to run."""
    size = path.stat().st_size
    return ProcessLimits(8 + min(size, 2e7) / 1e5 + size / 2e7, MEMORY + 4 * size)


def try_program(path: str, modules: list[str], out: str) -> dict[str, Any]:
    """Run a program on an image of zeros, and return its scale and the SHA-256 of its file.

    Args:
        path: The file.
        modules: They register operators of ours that the program may call.
        out: Nothing is written there.

    Raises:
        CheckpointError: It does not take an image, does not run, or an operator gives other sizes
            than the file says.
        TraceError: It returns no image.
    """
    for name in modules:
        importlib.import_module(name)
    place = Path(path)
    program = read_program(place)
    shape = input_shape(program, place)
    weights = {**program.state_dict, **program.constants}
    inputs = [
        torch.zeros(shape) if spec.kind == InputKind.USER_INPUT else weights[str(spec.target)]
        for spec in program.graph_signature.input_specs
    ]
    with torch.no_grad():
        outputs = _Checked(program.graph_module, place).run(*inputs)
    return {
        "scale": scale_of(shape, outputs[-1]),
        "sha256": hashlib.sha256(place.read_bytes()).hexdigest(),
    }


def input_shape(program: torch.export.ExportedProgram, path: Path) -> tuple[int, ...]:
    """Return the shape (1, C, H, W) that a program takes.

    Raises:
        CheckpointError: It takes something else.
    """
    arguments: tuple[Any, ...] = program.example_inputs[0] if program.example_inputs else ()
    if len(arguments) != 1 or not _is_image(arguments[0]):
        raise CheckpointError(
            "the exported program must take one image (1, C, H, W)", where=str(path)
        )
    return tuple(arguments[0].shape)


def _is_image(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and len(value) == 1


class _Checked(Interpreter):
    """Runs a graph and compares every tensor with what the graph says of it."""

    def __init__(self, module: torch.fx.GraphModule, path: Path) -> None:
        super().__init__(module)
        self.path = path

    def run_node(self, n: Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            raise CheckpointError(
                f"the exported program does not run: {n.name} ({n.target}): {reason(error)}",
                where=str(self.path),
            ) from error
        if n.op in ("placeholder", "call_function"):
            self._compare(n, result, n.meta.get("val"))
        return result

    def _compare(self, node: Node, result: Any, said: Any) -> None:
        pairs = zip(result, said, strict=False) if isinstance(said, tuple | list) else ()
        for one, other in (*pairs, (result, said)):
            if isinstance(one, Tensor) and isinstance(other, Tensor):
                found, claimed = (f"{tuple(x.shape)} {x.dtype}" for x in (one, other))
                if found != claimed:
                    raise CheckpointError(
                        f"{node.name} of the exported program is {found}, the file says {claimed}",
                        where=str(self.path),
                        hint="export the network again",
                    )
