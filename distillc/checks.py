"""What is asked of options and arguments, checked before any work begins.

The command line and the API ask here, so that both refuse the same, in the same words.
"""

from __future__ import annotations

import math
import os
import re
import stat
import tempfile
from pathlib import Path

from distillc.errors import DistillcError, StorageError, UsageError, reason

Range = tuple[float, float]

EDGES: Range = (1, 16384)
"""Height and width of an image that a network is built for, pixels."""
THREADS: Range = (1, 64)
RUNS: Range = (1, 1_000_000)
"""Timed runs; what `native/bench.c` takes."""
SEEDS: Range = (0, 2**63 - 1)
MINUTES: Range = (0, 525_600)
"""Of tuning, up to a year."""
POSITIVE: Range = (1e-6, math.inf)
NOT_NEGATIVE: Range = (0, math.inf)

_KINDS = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISDIR: "a folder",
}


def check_whole(limits: Range, **values: int) -> None:
    """Check whole numbers by name.

    Args:
        limits: The least and the largest allowed.
        values: Name -> number.

    Raises:
        UsageError: One is not whole, or out of range.
    """
    least, most = limits
    for name, value in values.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and least <= value <= most):
            hint = f"give a whole number from {least:.0f} to {most:.0f}"
            raise UsageError(f"{value!r} is out of range", where=name, hint=hint)


def check_real(limits: Range, **values: float | None) -> None:
    """Check finite numbers by name; None is one that was not given.

    Args:
        limits: The least and the largest allowed.
        values: Name -> number.

    Raises:
        UsageError: One is not a number (`nan`), infinite, or out of range.
    """
    least, most = limits
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            upper = "" if math.isinf(most) else f" to {most:g}"
            hint = f"give a number from {least:g}{upper}"
            raise UsageError(f"{value!r} is out of range", where=name, hint=hint)


def parse_size(text: str) -> tuple[int, int]:
    """Return (H, W) in pixels of `256x128`, or of one number for a square.

    Raises:
        UsageError: It is not a size, or out of range.
    """
    found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", text.strip().lower())
    if not found:
        raise UsageError(f"{text[:40]!r} is not a size", hint="write 256x256, or 256 for a square")
    size = int(found[1]), int(found[2] or found[1])
    check_size(size)
    return size


def check_size(size: tuple[int, int]) -> None:
    """Check (H, W) in pixels.

    Raises:
        UsageError: An edge is out of range.
    """
    height, width = size
    check_whole(EDGES, height=height, width=width)


def check_training_device(name: str) -> None:
    """Check a torch device.

    Raises:
        UsageError: It is neither `cpu` nor `cuda` with or without a number, or not here.
    """
    found = re.fullmatch(r"cpu|cuda(?::([0-9]{1,3}))?", name)
    if not found:
        raise UsageError(f"no device that trains is called {name!r}", hint="use cpu or cuda")
    if name == "cpu":
        return
    import torch  # here, for it takes seconds, and `--help` needs none of it

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(found[1] or 0) >= count:
        raise UsageError(
            f"{name} is not here: torch sees {count or 'no'} CUDA devices",
            hint="use --train-on cpu",
        )


def check_name(path: Path) -> None:
    """Check the name of a file or folder, which need not exist.

    Raises:
        UsageError: It is empty, too long, or has bytes that no name may have or no report can show.
    """
    text = str(path)
    try:
        coded = text.encode()
    except UnicodeEncodeError:
        what = "is not UTF-8"
    else:
        longest = max(map(len, coded.split(b"/")))
        if b"\0" in coded:
            what = "holds a NUL"
        elif longest > 255 or len(coded) > 4095:
            what = "is too long: 255 bytes are possible, 4095 with all folders"
        else:
            return
    shown = repr(text if len(text) <= 60 else f"{text[:57]}...")
    raise UsageError(f"the name {shown} {what}", hint="rename it, or choose another place")


def check_file(path: Path, error: type[DistillcError]) -> None:
    """Check that what exists under a name is a plain file: reading a pipe would wait for ever.

    Args:
        path: The file; what is missing is left to whoever opens it.
        error: Class of the error where it is something else.

    Raises:
        UsageError: No file can have this name.
        DistillcError: It is a folder, pipe, socket or device, or cannot be looked at.
    """
    check_name(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as failed:
        raise error(f"cannot be read: {reason(failed)}", where=str(path)) from failed
    for is_kind, kind in _KINDS.items():
        if is_kind(mode):
            raise error(f"{path.name} is {kind}, not a file", where=str(path), hint="name a file")


def check_writable(path: Path) -> None:
    """Check that a file or folder can be made under a name.

    Raises:
        UsageError: No file can have this name.
        StorageError: The nearest folder that exists cannot be written.
    """
    check_name(path)
    try:
        folder = path.absolute().parent
        while not os.path.lexists(folder):
            folder = folder.parent
        with tempfile.TemporaryDirectory(prefix=".distillc-", dir=folder):
            pass
    except OSError as error:
        raise StorageError(
            f"cannot write: {reason(error)}", where=str(path), hint="choose another place"
        ) from error


def temporary_folder() -> Path:
    """Return the folder of temporary files; Python would silently use another.

    Raises:
        StorageError: `TMPDIR` is set, and no folder that can be written.
    """
    named = os.environ.get("TMPDIR")
    if not named:
        return Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryDirectory(dir=named):
            return Path(named)
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the folder of temporary files cannot be used: {reason(error)}",
            where=named,
            hint="set TMPDIR to a folder that you can write to",
        ) from error
