"""Files of `torch.save`: what is in them, without running anything that they carry."""

from __future__ import annotations

import argparse
import io
import pathlib
import pickle
import pickletools
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch

from distillc.errors import CheckpointError, reason

LARGEST_PICKLE = 2**26
"""Bytes of `data.pkl`, which names tensors and holds none of them."""

AGAIN = "copy or download it again"

_NUMPY_PARTS = {
    "scalar": np.float64(0).__reduce__()[0],
    "_reconstruct": np.zeros(0).__reduce__()[0],
}
HARMLESS: tuple[Any, ...] = (
    # Scores and statistics beside the weights; the module has an older and a newer name.
    *(
        (function, f"{module}.multiarray.{name}")
        for module in ("numpy.core", "numpy._core")
        for name, function in _NUMPY_PARTS.items()
    ),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDUS"},
    # Options of the training.
    argparse.Namespace,
    SimpleNamespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
)
"""What a pickle may name beside tensors: classes of plain values, which run nothing."""

_CODE = ("Unsupported", "GLOBAL", "Can only build")
"""What torch says of a pickle that makes more than tensors and plain values."""


def read_torch(path: Path, trust_pickle: bool = False) -> Any:
    """Return what a file of `torch.save` holds, on the CPU.

    Raises:
        CheckpointError: It is damaged or hostile, a pickle that names code, or needs code that is
            not there.
    """
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"PK"
    if zipped:
        require_stored(path)
    try:
        # The content decides what the file is; torch would go by the name of a path.
        with torch.serialization.safe_globals(list(HARMLESS)), path.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=not trust_pickle)
    except pickle.UnpicklingError as error:
        names_code = any(each in str(error) for each in _CODE)
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
        if trust_pickle and isinstance(error, ImportError | AttributeError):
            raise _needs_code(error, path) from error
        raise CheckpointError(
            f"the checkpoint cannot be read, it may be truncated: {reason(error)}",
            where=str(path),
            hint=AGAIN,
        ) from error


def _needs_code(error: ImportError | AttributeError, path: Path) -> CheckpointError:
    """Say which package or class a trusted pickle names that is not here."""
    package = (getattr(error, "name", None) or "").partition(".")[0]
    where = "run distillc in the folder of the code that made it"
    if isinstance(error, ModuleNotFoundError) and package:
        where = f"pip install {package} if it is a public package, or {where}"
    return CheckpointError(
        f"the pickle names code that is not here: {reason(error)}",
        where=str(path),
        hint=f"{where}; or save only the weights there: torch.save(model.state_dict(), path)",
    )


def require_stored(path: Path, unread: str | None = None) -> None:
    """Refuse a torch archive that is cut, or that would grow as it is read.

    Torch stores members as they are. A compressed one may be a thousand times as large.

    Args:
        path: The archive.
        unread: Folder in it that is not read, and may be compressed.

    Raises:
        CheckpointError: It is not whole, a member is compressed, or all claim more than there is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                each
                for each in archive.infolist()
                if unread is None or f"/{unread}/" not in each.filename
            ]
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
        if any(each in line for each in _CODE):
            return line.strip()[:200]
    return reason(error)
