"""Constants that the user gives: numbers and lists as JSON, tensors and pictures in files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from distillc.data.files import read_picture
from distillc.data.folders import ARRAY, SUFFIXES
from distillc.errors import CheckpointError, UsageError, reason
from distillc.frontend.formats import require_file
from distillc.frontend.torch_file import read_torch

EXAMPLES = "write NAME=0.1, NAME=[0.1, 0.2], NAME='\"text\"', or NAME=FILE with one array or tensor"


def parse_input(text: str) -> tuple[str, Any]:
    """Return the name and the value of `NAME=FILE|VALUE`; a file is a `Path`, not read yet.

    Raises:
        UsageError: It is neither a JSON value nor named like a file that can be read.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{text[:40]!r} names no input", hint=EXAMPLES)
    if Path(value).suffix.lower() in READERS:
        return name, Path(value)
    try:
        return name, _plain(json.loads(value, parse_constant=_refuse))
    except ValueError as error:
        raise UsageError(
            f"{value[:40]!r} is neither a value nor a file",
            hint=f"{EXAMPLES}; files end in {', '.join(sorted(READERS))}",
        ) from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not finite")


def _plain(value: Any) -> Any:
    """Return a value that is a number, a text, None, or nested lists of numbers."""
    if isinstance(value, (list, tuple)):
        as_tensor(value)
        return list(value)
    if not isinstance(value, (bool, int, float, str, type(None))):
        raise ValueError(f"it is a {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it is not finite")
    return value


def as_tensor(value: Any) -> Tensor:
    """Return numbers as a tensor: float32, int64 or bool.

    Raises:
        ValueError: It is not a list of numbers, all of one length, or they are not finite.
    """
    try:
        made = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except TypeError as error:
        raise ValueError(reason(error)) from error
    if made.is_floating_point():
        made = made.float()
    elif made.dtype != torch.bool:
        made = made.long()
    if made.is_complex() or not made.isfinite().all():
        raise ValueError("numbers that are not finite")
    return made.detach().contiguous()


def read_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return constants by name, those in files and arrays as tensors.

    Args:
        inputs: Name -> a number, a text, None, nested lists of numbers, an array or tensor, or the
            `Path` of a file that holds one.

    Raises:
        UsageError: A value is none of these.
        CheckpointError: A file cannot be read, or does not hold one tensor.
    """
    made = {}
    for name, value in inputs.items():
        try:
            if isinstance(value, Path):
                made[name] = _read(value)
            elif isinstance(value, (Tensor, np.ndarray, np.generic)):
                made[name] = as_tensor(value if isinstance(value, Tensor) else np.asarray(value))
            else:
                made[name] = _plain(value)
        except (ValueError, TypeError) as error:
            raise UsageError(
                f"input {name!r} is not a constant: {reason(error)}", where="--input", hint=EXAMPLES
            ) from error
    return made


def described_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of constants: values, of tensors the SHA-256 of their numbers."""
    return {
        name: {
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
            "sha256": hashlib.sha256(value.numpy().tobytes()).hexdigest(),
        }
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }


def _read(path: Path) -> Tensor:
    require_file(path)
    try:
        found = READERS[path.suffix.lower()](path)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"the input cannot be read: {reason(error)}", where=str(path)
        ) from error
    tensors = _tensors(found)
    if len(tensors) != 1:
        raise CheckpointError(
            f"an input is one tensor, the file holds {len(tensors)}",
            where=str(path),
            hint="save it alone: torch.save(tensor, path) or numpy.save(path, array)",
        )
    return as_tensor(tensors[0])


def _tensors(found: Any) -> list[Any]:
    if isinstance(found, (Tensor, np.ndarray)):
        return [found]
    parts = found.values() if isinstance(found, Mapping) else found
    return [each for part in parts for each in _tensors(part)] if _holds(found) else []


def _holds(found: Any) -> bool:
    return isinstance(found, (Mapping, list, tuple))


def _picture(path: Path) -> Tensor:
    """Return a picture as networks take images: (1, C, H, W) float32, white is 1."""
    picture = read_picture(path)
    return torch.from_numpy(picture.planes(0, picture.size[1]))[None]


def _numpy(path: Path) -> Any:
    found = np.load(path, allow_pickle=False)
    return found if isinstance(found, np.ndarray) else dict(found)


READERS: dict[str, Callable[[Path], Any]] = {
    **dict.fromkeys(SUFFIXES, _picture),
    **dict.fromkeys((ARRAY, ".npz"), _numpy),
    **dict.fromkeys((".pt", ".pth"), read_torch),
    ".safetensors": lambda path: load_file(str(path)),
}
"""Ending -> what reads such a file."""
