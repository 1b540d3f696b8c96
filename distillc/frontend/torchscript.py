"""The weights of a TorchScript archive. Its code is neither run nor read."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillc.errors import CheckpointError, reason
from distillc.frontend.torch_file import AGAIN, require_stored

STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}

WHAT = "this is a TorchScript archive"


class _Module:
    """An object of the archive: what it holds by name."""

    def __setstate__(self, state: Any) -> None:
        self.held = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Makes tensors and plain values; every class of the archive is `_Module`."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle":  # lists with the types of their elements
            return lambda value, *_: value
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module.startswith("__torch__") and not module.startswith("__torch__.torch.classes"):
            return _Module
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        numbers = self.archive.read(f"{self.folder}/data/{key}")
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(numbers), dtype=dtype, count=count)


def _tensor(numbers: Tensor, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not math.prod(shape):
        return numbers.new_empty(shape)
    return numbers.as_strided(shape, strides, offset)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors that the modules of an archive hold, by the names of a state dict.

    Raises:
        CheckpointError: It is damaged, holds what is neither module nor tensor, or no tensors, as
            a frozen one does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.endswith("/data.pkl"))
            require_stored(path, unread="code")
            content = _Reader(archive, name.removesuffix("/data.pkl")).load()
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged pickle causes
        raise CheckpointError(
            f"{WHAT}, and its weights cannot be read: {reason(error)}", where=str(path), hint=AGAIN
        ) from error
    state = dict(_tensors(content, ""))
    if not state:
        raise CheckpointError(
            f"{WHAT} without weights: a frozen one keeps them in its code",
            where=str(path),
            hint="bring the checkpoint that it was made from, or export the network as .onnx",
        )
    return state


def _tensors(module: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "held", {}).items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module) and depth < DEEPEST:
            yield from _tensors(value, f"{prefix}{name}.", depth + 1)


DEEPEST = 50
"""Modules within each other; one may hold itself."""
