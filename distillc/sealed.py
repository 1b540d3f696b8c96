"""Files that are believed only with their checksum.

Power cuts leave holes, disks flip bits, people copy folders. What a later run reads back ends with
a line that holds the SHA-256 of its place and its content. What does not match is put aside with
one line of warning and made again. Libraries and programs have that line too: loaders do not look
behind the last section.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distillc.errors import reason
from distillc.workdir import cache_folder, storage_errors, write_whole

log = logging.getLogger(__name__)

T = TypeVar("T")

KEPT = 5
"""So many damaged files of one name stay, the newest."""

LARGEST_JOURNAL = 1 << 26
"""Bytes of a file of lines that are read; a hole can be larger than memory."""

_MARK = b"\n# sha256 "
_FOOTER = len(_MARK) + 64 + 1
_UNREADABLE = (errno.EIO, errno.EACCES, errno.EPERM)


def write_sealed(path: Path, content: bytes) -> None:
    """Write content with its checksum, whole or not at all.

    Raises:
        StorageError: It cannot be written; `path` is as it was before.
    """
    write_whole(path, lambda temporary: temporary.write_bytes(content + _footer(path, content)))


def read_sealed(path: Path, unpack: Callable[[bytes], T]) -> T | None:
    """Return what a sealed file holds; None where there is none, or a damaged one was put aside.

    Args:
        path: The file.
        unpack: Makes a value of the content; what it raises means that the content is damaged.

    Raises:
        StorageError: It can neither be read nor put aside.
    """
    if not os.path.lexists(path):
        return None
    with storage_errors(path):
        try:
            return unpack(_content(path))
        except MemoryError:
            raise
        except OSError as error:
            if error.errno not in _UNREADABLE:
                raise
            why = f"cannot be read ({reason(error)})"
        except Exception as error:
            why = reason(error)
        put_aside(path, why)
    return None


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError("is not a file")
    with path.open("rb") as stream:
        # The end first: a file may have grown by a hole that is larger than memory.
        length = max(0, stream.seek(0, os.SEEK_END) - _FOOTER)
        stream.seek(length)
        footer = stream.read()
        if not footer.startswith(_MARK):
            raise ValueError("has no checksum (damaged, or made by an older distillc)")
        stream.seek(0)
        content = stream.read(length)
    if footer != _footer(path, content):
        raise ValueError("does not match its checksum")
    return content


def _footer(path: Path, content: bytes) -> bytes:
    return _MARK + _checksum(f"{path.parent.name}/{path.name}", content).encode() + b"\n"


def _checksum(place: str, content: bytes) -> str:
    return hashlib.sha256(place.encode() + b"\0" + content).hexdigest()


def put_aside(path: Path, why: str) -> None:
    """Rename what cannot be trusted to `<name>.damaged-<number>`, with one line of warning.

    Args:
        path: A file, or whatever is there in its place.
        why: What is wrong with it, to be read after its name.

    Raises:
        StorageError: It cannot be renamed.
    """
    names = [path.with_name(f"{path.name}.damaged-{number}") for number in range(1, KEPT + 1)]
    free = [name for name in names if not os.path.lexists(name)]
    files = [name for name in names if not name.is_dir()]
    aside = [*free, *sorted(files, key=_changed), names[0]][0]
    with storage_errors(path):
        try:
            if path.is_dir() and not free and files:
                aside.unlink()  # a folder takes no file's name
            os.replace(path, aside)
        except FileNotFoundError:
            return  # another process was faster
    log.warning("%s %s: put aside as %s and made again", path, why, aside.name)


def _changed(path: Path) -> int:
    return path.lstat().st_ctime_ns if os.path.lexists(path) else 0


def sealed_program(path: Path, build: Callable[[Path], object]) -> Path:
    """Return a library or a program, built where it is missing or not what was built.

    Args:
        path: Where it is kept.
        build: Writes it to the path it is given.

    Raises:
        StorageError: It cannot be written.
    """

    def check(_: bytes) -> bool:
        if not path.stat().st_mode & 0o111:
            raise ValueError("is not executable")
        return True

    def write(temporary: Path) -> None:
        build(temporary)
        footer = _footer(path, temporary.read_bytes())
        with temporary.open("ab") as stream:
            stream.write(footer)

    if not read_sealed(path, check):
        write_whole(path, write)
    return path


def cached_file(name: str, key: bytes, build: Callable[[Path], object]) -> Path:
    """Return a library or a program in the user's cache, built when it is not there.

    Args:
        name: Its name; a digest of `key` is added.
        key: Everything the content depends on.
        build: Writes the content to the path it is given.
    """
    stem, dot, suffix = name.partition(".")
    digits = hashlib.sha256(key).hexdigest()[:16]
    return sealed_program(cache_folder() / f"{stem}-{digits}{dot}{suffix}", build)


def seal_line(place: str, entry: Mapping[str, Any]) -> str:
    """Return an entry of a journal as a line of JSON with its checksum.

    Args:
        place: What the line belongs to; it is damaged anywhere else.
        entry: JSON values, finite.
    """
    return json.dumps({**entry, "check": _line_checksum(place, entry)}, sort_keys=True)


def _line_checksum(place: str, entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True, allow_nan=False)
    return _checksum(place, text.encode())[:16]


def read_lines(
    path: Path, place: str, unpack: Callable[[dict[str, Any]], T], *, checked: bool = True
) -> tuple[list[T], list[int]]:
    """Return the entries of a file of lines, and the numbers (from 1) of lines that are damaged.

    Args:
        path: The file, which need not exist.
        place: As for `seal_line`.
        unpack: Makes a value of an entry; what it raises means that the line is damaged.
        checked: Whether a line without a checksum is damaged.

    Raises:
        OSError: It cannot be read.
    """
    entries: list[T] = []
    damaged: list[int] = []
    if not path.exists():
        return entries, damaged
    with path.open("rb") as stream:
        lines = stream.read(LARGEST_JOURNAL).split(b"\n")
        if stream.read(1):
            lines[-1] = b"?"  # the rest was not read
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            entry = json.loads(line)
            wanted = entry.pop("check", None)
            if (checked or wanted is not None) and wanted != _line_checksum(place, entry):
                raise ValueError("does not match its checksum")
            entries.append(unpack(entry))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            damaged.append(number)
    return entries, damaged


def name_lines(numbers: Sequence[int]) -> str:
    """Return a few words that name lines by their numbers: `"lines 3, 7"`."""
    few = ", ".join(map(str, numbers[:5]))
    return f"line{'s' * (len(numbers) > 1)} {few}{', ...' * (len(numbers) > 5)}"
