"""ONNX Runtime as a torch module: what the ONNX file computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from distillc.data.picture import Array
from distillc.errors import CheckpointError, reason
from distillc.frontend.onnx_graph.inputs import Declared, chosen, is_map


class OnnxRuntime(nn.Module):
    """An ONNX file in ONNX Runtime, (1, C, H, W) float32 -> (1, C', H', W') float32.

    Args:
        path: The file.
        constants: Name -> constant of every further input, from `read_inputs`.
        content: What is loaded instead of the file, if it was changed since it was read.

    Raises:
        CheckpointError: ONNX Runtime cannot load the file.
        UsageError: It has no input of a name, or one of another shape.
    """

    def __init__(
        self,
        path: Path,
        constants: Mapping[str, Any] | None = None,
        content: bytes | None = None,
    ) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised too
        try:
            self.session = onnxruntime.InferenceSession(
                content or str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CheckpointError(
                f"ONNX Runtime cannot load the network: {reason(error)}",
                where=str(path),
            ) from error

        found = [_declared(each) for each in self.session.get_inputs()]
        self.fixed = chosen(found, constants) if constants else {}

    def forward(self, image: Tensor) -> Tensor:
        fixed = {
            each.name: _map(value, image.shape) if is_map(each, value) else value
            for each, value in self.fixed.items()
        }
        (name,) = (each.name for each in self.session.get_inputs() if each.name not in fixed)
        (result,) = self.session.run(None, {name: image.numpy(), **fixed})
        return torch.from_numpy(result)


def _map(value: Array, shape: Sequence[int]) -> Array:
    return np.broadcast_to(value, (1, value.shape[1], *shape[2:]))


def _declared(given: onnxruntime.NodeArg) -> Declared:
    kind = _TYPES.get(given.type)
    shape = tuple(each if isinstance(each, int) else None for each in given.shape)
    return Declared(given.name, None if kind is None else np.dtype(kind), shape)


_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{
        f"tensor({sign}int{bits})": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
"""ONNX Runtime's names of types, and numpy's."""
