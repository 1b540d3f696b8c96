"""Files that are written whole or not at all, and digests that name what is in them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from distillc.errors import StorageError, reason

_PARTIAL = ".distillc-partial"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE = 1 << 20


def digest(value: Any) -> str:
    """Return 16 hex digits that name a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that names `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        hint = (
            "free some space and run the same command again: finished stages are kept"
            if full
            else "choose a place you can write to with --work-dir or --out"
        )
        raise StorageError(
            "the disk is full" if full else f"cannot write: {reason(error)}",
            where=str(path),
            hint=hint,
        ) from error


@contextmanager
def full_disk() -> Iterator[None]:
    """Turn whatever the block raises where space is missing into a `StorageError`.

    Zig, TVM and torch have errors of their own for it.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause and not _lacks_space(cause):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise StorageError(
            "the disk is full",
            where=getattr(cause, "filename", None) or f"{tempfile.gettempdir()} or --work-dir",
            hint="free some space and run the same command again: finished stages are kept",
        ) from error


def _lacks_space(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return "No space left on device" in str(error) or "NoSpaceLeft" in str(error)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary file beside `path`, then rename it over `path`.

    Raises:
        StorageError: The disk is full or the place cannot be written; `path` is as it was before.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL)
        os.close(handle)
        try:
            write(Path(name))
            if not os.path.exists(name) and shutil.disk_usage(path.parent).free < _NO_SPACE:
                # Zig reports success when its output found no space.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # only the owner may read mkstemp's files; what `write` made executable stays so.
            executable = os.stat(name).st_mode & 0o111
            os.chmod(name, (0o666 | executable) & ~_umask())
            with open(name, "rb") as stream:
                os.fsync(stream)  # or a power cut could keep the name and lose the content
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs of `write_whole` left in a folder that nobody else writes to."""
    for left in folder.glob(f".*{_PARTIAL}"):
        left.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text))


def append_line(path: Path, line: str) -> None:
    """Append a line to a file in one write; a torn last line is closed first.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else "\n" + line
            stream.write((line + "\n").encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def save(temporary: Path) -> None:
        try:
            save_file(plain, str(temporary))
        except Exception as error:  # safetensors wraps the OSError in an error of its own
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise

    write_whole(path, save)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read what `write_tensors` wrote."""
    return load_file(str(path))


def cache_folder() -> Path:
    """Return the folder of the user's cache, which need not exist."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "distillc"
