"""Reading checkpoint files: what is in them, without running anything that they carry."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from distillc.errors import CheckpointError, reason

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which public checkpoints keep their state dict, the preferred first."""


def read_checkpoint(path: Path, trust_pickle: bool = False) -> dict[str, Tensor] | nn.Module:
    """Return the state dict in a file, float32, without wrappers and `module.` prefixes.

    A module is returned only for a pickle that the user trusts.

    Raises:
        CheckpointError: The file is missing, empty, damaged, no checkpoint, or a pickle that
            carries code.
    """
    require_file(path)
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    else:
        content = _read_torch(path, trust_pickle)
    if isinstance(content, nn.Module):
        return content.eval()
    return _state_dict(content, path)


def is_onnx(path: str | Path) -> bool:
    """Whether a checkpoint is an ONNX file, by its name."""
    return Path(path).suffix.lower() == ".onnx"


def require_file(path: Path) -> None:
    """Refuse what is no file, or an empty one.

    Raises:
        CheckpointError: It is missing, a folder, or empty.
    """
    if not path.exists():
        raise CheckpointError("the checkpoint does not exist", where=str(path))
    if path.is_dir():
        raise CheckpointError("the checkpoint is a folder", where=str(path), hint="name a file")
    if path.stat().st_size == 0:
        raise CheckpointError(
            "the checkpoint is empty", where=str(path), hint="copy or download it again"
        )


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(str(path))
    except Exception as error:
        raise CheckpointError(
            f"this is not a whole safetensors file: {error}",
            where=str(path),
            hint="copy or download it again",
        ) from error


def _read_torch(path: Path, trust_pickle: bool) -> Any:
    with path.open("rb") as stream:
        head = stream.read(16)
    zipped = head.startswith(b"PK\x03\x04")
    if zipped and not _is_zip(path):
        raise CheckpointError(
            "the checkpoint is truncated", where=str(path), hint="copy or download it again"
        )
    if not zipped and not head.startswith(b"\x80"):
        raise CheckpointError(
            "this is not a checkpoint: neither a torch file, nor safetensors, nor a .pt2 program",
            where=str(path),
            hint="a state dict saved by torch.save is what public checkpoints are",
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        names_code = "Unsupported" in str(error) or "GLOBAL" in str(error)
        if trust_pickle or not names_code or not _is_whole(path, zipped):
            raise CheckpointError(
                f"the checkpoint is damaged: {reason(error)}",
                where=str(path),
                hint="copy or download it again",
            ) from error
        raise CheckpointError(
            "the checkpoint is a pickle that names Python code, and loading it can run any code: "
            + _named_code(error),
            where=str(path),
            hint="save the state dict (torch.save(model.state_dict(), ...)), or, if you made the "
            "file yourself, add --trust-pickle",
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint cannot be read, it may be truncated: {reason(error)}",
            where=str(path),
            hint="copy or download it again",
        ) from error


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _is_whole(path: Path, zipped: bool) -> bool:
    """Whether what a file pickles is whole: damage can look like the name of some code."""
    pickles = 1 if zipped else 4  # the older layout: magic number, version, system, content
    try:
        with path.open("rb") as file:
            stream: IO[bytes] = file
            if zipped:
                with zipfile.ZipFile(file) as archive:
                    (name,) = (each for each in archive.namelist() if each.endswith("/data.pkl"))
                    stream = io.BytesIO(archive.read(name))  # compares its checksum
            for _ in range(pickles):
                for _ in pickletools.genops(stream):
                    pass
    except Exception:
        return False
    return True


def _named_code(error: Exception) -> str:
    """Return the part of torch's message that names the code."""
    for line in str(error).splitlines():
        if "GLOBAL" in line:
            return line.strip()[:200]
    return reason(error)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    tensors = (
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise CheckpointError(
            f"there is no state dict in the file (it holds a {type(content).__name__})",
            where=str(path),
            hint=f"expected tensors by name, bare or under one of: {', '.join(WRAPPERS)}",
        )
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return {
        key: value.float() if value.is_floating_point() else value for key, value in tensors.items()
    }
