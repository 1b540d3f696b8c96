"""Reading checkpoint files: what kind each is, by its content, and the weights in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from distillc.errors import CheckpointError
from distillc.frontend.changes import tell
from distillc.frontend.kinds import kind_of
from distillc.frontend.normalise import normalise
from distillc.frontend.state import check_state
from distillc.frontend.torch_file import AGAIN, read_torch
from distillc.frontend.torchscript import read_torchscript
from distillc.frontend.weights import find_state
from distillc.sandbox import ProcessLimits, outcome

CODE = "this is a TorchScript archive: its weights are taken, its code is not"


def read_checkpoint(
    path: Path, trust_pickle: bool = False, sandbox: bool = True, key: str | None = None
) -> dict[str, Tensor] | nn.Module:
    """Return the state dict in a file, float32, by the network's own names; log what was changed.

    A module is returned only for a pickle that the user trusts, which is read in this process.

    Args:
        path: The file.
        trust_pickle: Unpickle whatever it holds.
        sandbox: Read it in a process of its own.
        key: Where in the file the weights are; see `weights.find_state`.

    Raises:
        CheckpointError: The file is missing, empty, damaged, hostile, no checkpoint, a pickle
            that carries code, or holds several state dicts.
        UsageError: The system has no such process, or there are no weights under `key`.
    """
    require_file(path)
    if trust_pickle and kind_of(path) == "torch":
        content = read_torch(path, trust_pickle)
        if isinstance(content, nn.Module):
            return content.eval()
        state, notes = _state(content, path, key)
        tell(path, notes)
        return state
    limits = checkpoint_limits(path) if sandbox else None
    with outcome("distillc.frontend.formats:extract", path, key, limits=limits) as (found, made):
        names, notes = found
        state = load_file(made)
        tell(path, notes)
        return {name: state[name] for name in names}


def checkpoint_limits(path: Path) -> ProcessLimits:
    """Return what reading a file may take: a copy or two in float32, and time for a slow disk."""
    size = path.stat().st_size
    return ProcessLimits(3 + size / 2e7, 2**30 + 6 * size)


def extract(path: str, key: str | None, out: str) -> tuple[list[str], list[str]]:
    """Write the state dict in a file as safetensors; return its names in order, and the changes.

    Raises:
        CheckpointError: As `read_checkpoint` does.
    """
    place = Path(path)
    kind = kind_of(place)
    state, notes = _state(READERS[kind](place), place, key)
    if kind == "torchscript":
        notes.insert(0, CODE)
    # Tied weights are two names of one memory, which the format does not know.
    Path(out).write_bytes(save({name: value.clone().contiguous() for name, value in state.items()}))
    return list(state), notes


def _state(content: Any, path: Path, key: str | None) -> tuple[dict[str, Tensor], list[str]]:
    state, left = find_state(content, path, key)
    check_state(state, path)
    state, changed = normalise(state)
    if not state:
        raise CheckpointError(
            f"there are no weights in the file: {changed[-1]}",
            where=str(path),
            hint="save the network's weights: torch.save(model.state_dict(), path)",
        )
    return state, left + changed


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


READERS = {
    "safetensors": _read_safetensors,
    "torchscript": read_torchscript,
    "torch": read_torch,
}
