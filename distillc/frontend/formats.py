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
from safetensors.torch import load_file, save
from torch import Tensor, nn

from distillc.errors import CheckpointError, reason
from distillc.frontend.state import check_state
from distillc.sandbox import ProcessLimits, outcome

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which public checkpoints keep their state dict, the preferred first."""

LARGEST_PICKLE = 2**26
"""Bytes of `data.pkl`, which names tensors and holds none of them."""

AGAIN = "copy or download it again"


def read_checkpoint(
    path: Path, trust_pickle: bool = False, sandbox: bool = True
) -> dict[str, Tensor] | nn.Module:
    """Return the state dict in a file, float32, without wrappers and `module.` prefixes.

    A module is returned only for a pickle that the user trusts, which is read in this process.

    Args:
        path: The file.
        trust_pickle: Unpickle whatever it holds.
        sandbox: Read it in a process of its own.

    Raises:
        CheckpointError: The file is missing, empty, damaged, hostile, no checkpoint, or a pickle
            that carries code.
        UsageError: The system has no such process.
    """
    require_file(path)
    if trust_pickle and path.suffix != ".safetensors":
        content = _read_torch(path, trust_pickle)
        if isinstance(content, nn.Module):
            return content.eval()
        state = _state_dict(content, path)
        check_state(state, path)
        return state
    limits = checkpoint_limits(path) if sandbox else None
    with outcome("distillc.frontend.formats:extract", path, limits=limits) as (names, made):
        state = load_file(made)
        return {name: state[name] for name in names}


def checkpoint_limits(path: Path) -> ProcessLimits:
    """Return what reading a file may take: a copy or two in float32, and time for a slow disk."""
    size = path.stat().st_size
    return ProcessLimits(3 + size / 2e7, 2**30 + 6 * size)


def extract(path: str, out: str) -> list[str]:
    """Write the state dict in a file as safetensors, and return its names in order.

    Raises:
        CheckpointError: As `read_checkpoint` does.
    """
    place = Path(path)
    content = _read_safetensors(place) if place.suffix == ".safetensors" else _read_torch(place)
    state = _state_dict(content, place)
    check_state(state, place)
    # Tied weights are two names of one memory, which the format does not know.
    Path(out).write_bytes(save({name: value.clone().contiguous() for name, value in state.items()}))
    return list(state)


def is_onnx(path: str | Path) -> bool:
    """Whether a checkpoint is an ONNX file, by its name."""
    return Path(path).suffix.lower() == ".onnx"


def require_file(path: Path) -> None:
    """Refuse what is not a file, or an empty one.

    Raises:
        CheckpointError: It is missing, a folder, no plain file, or empty.
    """
    if not path.exists():
        raise CheckpointError("the checkpoint does not exist", where=str(path))
    if path.is_dir():
        raise CheckpointError("the checkpoint is a folder", where=str(path), hint="name a file")
    if not path.is_file():  # a pipe or a device: reading may never end
        raise CheckpointError("the checkpoint is not a file", where=str(path), hint="name a file")
    if path.stat().st_size == 0:
        raise CheckpointError("the checkpoint is empty", where=str(path), hint=AGAIN)


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(str(path))
    except Exception as error:
        raise CheckpointError(
            f"this is not a whole safetensors file: {error}", where=str(path), hint=AGAIN
        ) from error


def _read_torch(path: Path, trust_pickle: bool = False) -> Any:
    with path.open("rb") as stream:
        head = stream.read(16)
    zipped = head.startswith(b"PK\x03\x04")
    if zipped:
        require_stored(path)
    elif not head.startswith(b"\x80"):
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
                f"the checkpoint is damaged: {reason(error)}", where=str(path), hint=AGAIN
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
            hint=AGAIN,
        ) from error


def require_stored(path: Path) -> None:
    """Refuse a torch archive that is cut, or that would grow as it is read.

    Torch stores members as they are. A compressed one may be a thousand times as large.

    Raises:
        CheckpointError: It is not whole, a member is compressed, or all claim more than there is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # whatever a damaged directory causes
        raise CheckpointError(
            f"the checkpoint is truncated: {reason(error)}", where=str(path), hint=AGAIN
        ) from error
    size = path.stat().st_size
    claimed = sum(each.file_size for each in members)
    packed = any(each.compress_type != zipfile.ZIP_STORED for each in members)
    tables = [each for each in members if each.filename.endswith("data.pkl")]
    if packed or claimed > size or any(each.file_size > LARGEST_PICKLE for each in tables):
        raise CheckpointError(
            f"the archive's members take {claimed:.3g} bytes of a file of {size:.3g}, or are "
            "compressed: torch.save writes no such file",
            where=str(path),
            hint="save it again with torch.save",
        )


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
