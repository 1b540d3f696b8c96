"""The work directory: results of stages, keyed by what made them, kept with their checksums.

Run the same command again after a crash and every finished stage is read back; change an option
and only the stages whose key holds that option run again. What is damaged is made again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from distillc.errors import PassError
from distillc.forms import Form
from distillc.sealed import (
    name_lines,
    put_aside,
    read_lines,
    read_sealed,
    seal_line,
    sealed_program,
    write_sealed,
)
from distillc.workdir import (
    append_line,
    digest,
    remove_leftovers,
    storage_errors,
    write_text,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class WorkDir:
    """A folder of stage folders, each named `<stage>-<digest of its key>`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    @contextmanager
    def stage(self, name: str, key: Any) -> Iterator[Stage]:
        """Open the stage with this key; another process that opens it waits for the end.

        Args:
            name: The stage, say `"distill"`.
            key: Everything the result depends on, JSON-serialisable.

        Raises:
            StorageError: The folder cannot be made or written.
        """
        folder = self.root / f"{name}-{digest(key)}"
        with storage_errors(folder):
            if os.path.lexists(folder) and not folder.is_dir():
                put_aside(folder, "is not a folder")
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK):
            remove_leftovers(folder)
            stage = Stage(folder)
            text = json.dumps(key, indent=2, sort_keys=True, default=str).encode()
            if stage.read("key.json", bytes) != text:
                stage.write("key.json", text)
            yield stage

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for files that nobody needs later; those of killed runs are removed.

        Raises:
            StorageError: It cannot be made.
        """
        with locked(self.root / LOCK):
            for left in self.root.glob("scratch-*"):
                if (left / LOCK).is_file() and not _is_locked(left / LOCK):
                    shutil.rmtree(left, ignore_errors=True)
            with storage_errors(self.root):
                folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.root))
            held = _take(folder / LOCK)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


class Stage:
    """One stage of a work directory, which this process has to itself while it is open.

    Attributes:
        folder: Where its results are; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def path(self, name: str) -> Path | None:
        """Return where a file for people goes, which is written and never read back."""
        if not self.folder:
            return None
        path = self.folder / name
        if os.path.lexists(path) and not path.is_file():
            put_aside(path, "is not a file")
        return path

    def once(self, name: str, form: Form[T], make: Callable[[], T]) -> T:
        """Return the result of this name; `make` is called only where none is there.

        Raises:
            PassError: What was made is not of this form; it is not kept.
            StorageError: It cannot be written.
        """

        kept = self.kept(name, form)
        return self.keep(name, form, make()) if kept is None else kept

    def kept(self, name: str, form: Form[T]) -> T | None:
        """Return the result of this name, None where none is there."""

        def unpack(content: bytes) -> T:
            value = form.unpack(content)
            form.check(value)
            return value

        return self.read(name, unpack)

    def keep(self, name: str, form: Form[T], made: T) -> T:
        """Keep a result under a name; return it.

        Raises:
            PassError: It is not of this form; it is not kept.
            StorageError: It cannot be written.
        """
        try:
            form.check(made)
        except ValueError as error:
            raise PassError(
                f"what was computed {error}",
                where=str(self.folder / name) if self.folder else name,
                hint="try another --seed or --task, or other surrogates with --family",
            ) from error
        self.write(name, form.pack(made))
        return made

    def read(self, name: str, unpack: Callable[[bytes], T]) -> T | None:
        """Return what a file holds; see `distillc.sealed.read_sealed`."""
        return read_sealed(self.folder / name, unpack) if self.folder else None

    def write(self, name: str, content: bytes) -> None:
        """Keep content under a name.

        Raises:
            StorageError: It cannot be written.
        """
        if self.folder:
            write_sealed(self.folder / name, content)

    def remove(self, name: str) -> None:
        """Forget what is under a name."""
        if self.folder:
            (self.folder / name).unlink(missing_ok=True)

    def program(self, name: str, build: Callable[[Path], object]) -> Path:
        """Return a library or a program of this stage; see `distillc.sealed.sealed_program`."""
        assert self.folder
        return sealed_program(self.folder / name, build)

    def journal(self, name: str, check: Callable[[Mapping[str, Any]], object]) -> Journal:
        """Open a journal of this stage."""
        return Journal(self.folder / name if self.folder else None, check)


class Journal:
    """Entries that are kept one by one, each with its checksum; a damaged one costs only itself.

    Args:
        path: A file of JSON lines; None keeps nothing.
        check: Raises where an entry is not what a line of this journal holds.

    Attributes:
        entries: What was there when it was opened.
    """

    def __init__(self, path: Path | None, check: Callable[[Mapping[str, Any]], object]) -> None:
        self._path = path
        self._place = f"{path.parent.name}/{path.name}" if path else ""
        self.entries: list[dict[str, Any]] = []
        if path and os.path.lexists(path):
            self._read(path, check)

    def _read(self, path: Path, check: Callable[[Mapping[str, Any]], object]) -> None:
        def unpack(entry: dict[str, Any]) -> dict[str, Any]:
            check(entry)
            return entry

        with storage_errors(path):
            if not path.is_file():
                put_aside(path, "is not a file")
                return
            self.entries, damaged = read_lines(path, self._place, unpack)
        if damaged:
            put_aside(path, f"is damaged ({name_lines(damaged)})")
            lines = [seal_line(self._place, entry) + "\n" for entry in self.entries]
            write_text(path, "".join(lines))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry of JSON values.

        Raises:
            StorageError: It cannot be written; the others are still there.
        """
        if self._path:
            append_line(self._path, seal_line(self._place, entry))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process at the latest; wait while another one has it.

    Raises:
        StorageError: The file cannot be made.
    """
    handle = _take(path)
    try:
        yield
    finally:
        os.close(handle)


def _take(path: Path) -> int:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not path.is_file():
            put_aside(path, "is not a file")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("another distillc works in %s: waiting for it", path.parent)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            log.warning("%s cannot be locked: run one distillc there at a time", path.parent)
    return handle


def _is_locked(path: Path) -> bool:
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
