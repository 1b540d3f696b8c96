"""The name that a bundle gets: what may have it, and how a new bundle takes it in one step.

A new bundle is made whole in a folder beside, whose name nobody has: `.distillc-new-XXXXXXXX`, with

    journal.json    whose bundle it will be, and its files; locked while the process lives
    new/            the bundle
    former/         what had the name before, where two folders cannot be exchanged in one step

What a killed process left there is put back and cleared by the next one that opens or writes the
name. Files are removed one by one, only those that a bundle or a journal lists; a folder that is
not empty then stays.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from distillc.errors import StorageError
from distillc.runtime import app
from distillc.runtime.exchange import exchange
from distillc.runtime.manifest import MANIFEST, our_files
from distillc.runtime.strict_json import read_object
from distillc.workdir import file_digest, storage_errors

log = logging.getLogger(__name__)

PREFIX = ".distillc-new-"
JOURNAL = "journal.json"
TRIES = 20
"""How often a name is tried that other processes write at the same time."""


def check_place(out: Path, overwrite: bool) -> Path:
    """Return the folder that a bundle will have, if one may be written there; links are followed.

    With `overwrite` that may be a bundle: a folder with our manifest, and nothing in it that a
    bundle does not list. An example for apps that somebody changed counts as theirs.

    Raises:
        StorageError: The name is taken, cannot be a folder's, or cannot be written.
    """
    try:
        with storage_errors(out):
            place = Path(os.path.realpath(out))
            heal(place)
            _refuse_taken(place, overwrite)
            _try_parent(place.parent)
    except ValueError as error:
        raise StorageError(f"this is not a file name: {error}", where=repr(str(out))) from error
    return place


def put_in_place(
    out: Path, overwrite: bool, files: Iterable[str], write: Callable[[Path], None]
) -> Path:
    """Make a bundle whole beside its name, then give it the name in one step.

    Args:
        out: The name; a link stays, the folder that it points at is written.
        overwrite: Whether a bundle that has the name may go.
        files: What `write` makes, besides the manifest.
        write: Fills an empty folder with the bundle.

    Returns:
        The folder, links followed.

    Raises:
        StorageError: As of `check_place`, or the disk is full; what had the name still has it.
    """
    place = check_place(out, overwrite)
    with storage_errors(out):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _stage(place, [*files, MANIFEST]) as stage:
            new = stage / "new"
            write(new)
            for each in (*new.iterdir(), new):
                _sync(each)
            _take(place, stage, overwrite)
            _sync(place.parent)
    return place


def heal(place: Path) -> None:
    """Put back and clear what killed processes left of a bundle of this name.

    Raises:
        OSError: It cannot be put back.
    """
    for stage in place.parent.glob(f"{PREFIX}*"):
        try:
            if not _is_own_folder(stage):
                continue
            journal = (stage / JOURNAL).open("rb")
        except OSError:  # finished in the meantime
            continue
        with journal:
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
                entries = read_object(stage / JOURNAL)
            except (OSError, ValueError):  # at work, or killed before it wrote there
                continue
            names = entries.get("files")
            if entries.get("bundle") == place.name and isinstance(names, list):
                _settle(place, stage, names)


def _refuse_taken(place: Path, overwrite: bool) -> None:
    """Raise a `StorageError` where what has the name must stay.

    Another process may replace it meanwhile: then what was found of both says nothing.
    """
    while True:
        try:
            found = place.lstat()
            refusal = _refusal(place, found, overwrite)
            if refusal is None or place.lstat().st_ino == found.st_ino:
                break
        except FileNotFoundError:
            if not os.path.lexists(place):
                return
    if refusal:
        raise refusal


def _refusal(place: Path, found: os.stat_result, overwrite: bool) -> StorageError | None:
    """Return why what has the name must stay, None where it may go."""
    where = str(place)
    if not stat.S_ISDIR(found.st_mode):
        return StorageError(
            "this is not a folder, so it is not a bundle that can be overwritten",
            where=where,
            hint="choose another name with --out",
        )
    if not overwrite:
        return StorageError(
            "the bundle exists already", where=where, hint="choose --out, or add --overwrite"
        )
    if our_files(place) is None:
        return StorageError(
            "this folder is not a bundle, so it is not overwritten",
            where=where,
            hint="choose another name with --out, or move the folder away",
        )
    if os.path.ismount(place):
        return StorageError(
            "a bundle that is a mount point cannot be overwritten",
            where=where,
            hint="choose a folder inside with --out",
        )
    if foreign := _foreign(place):
        some = ", ".join(foreign[:5]) + (f" ... ({len(foreign)})" if len(foreign) > 5 else "")
        return StorageError(
            f"the bundle's folder holds what distillc did not write: {some}",
            where=where,
            hint="move these away, or choose another name with --out; nothing was changed",
        )
    return None


def _foreign(folder: Path) -> list[str]:
    """Return the names in a bundle's folder that are not, or no longer, as distillc wrote them.

    Only examples for apps are looked into: people change these, and a damaged library may go.
    """
    ours = our_files(folder) or frozenset()
    names = [each.name for each in os.scandir(folder) if not _is_listed(each, ours)]
    hashes = read_object(folder / MANIFEST)["files"] if ours else {}
    changed = [
        name
        for name in app.FILES
        if name in hashes and (folder / name).is_file() and name not in names
        if file_digest(folder / name) != hashes[name]
    ]
    return sorted([*names, *changed])


def _is_listed(entry: os.DirEntry[str], names: Container[str]) -> bool:
    return entry.name in names and entry.is_file(follow_symlinks=False)


def _try_parent(parent: Path) -> None:
    """Raise an `OSError` unless a folder can be made in the parent, or in what will hold it."""
    while not os.path.lexists(parent):
        parent = parent.parent
    os.rmdir(tempfile.mkdtemp(prefix=PREFIX, dir=parent))


@contextmanager
def _stage(place: Path, names: Sequence[str]) -> Iterator[Path]:
    stage = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place.parent))
    with (stage / JOURNAL).open("x") as journal:
        with suppress(OSError):  # a file system without locks, where nothing can heal
            fcntl.flock(journal, fcntl.LOCK_EX)
        try:
            json.dump({"bundle": place.name, "files": names}, journal)
            journal.flush()
            os.fsync(journal.fileno())
            (stage / "new").mkdir()
            yield stage
        finally:
            _settle(place, stage, names)


def _settle(place: Path, stage: Path, names: Container[str]) -> None:
    """Give a name without bundle its former one back, and remove the stage."""
    former = stage / "former"
    if _is_own_folder(former) and not os.path.lexists(place):
        with _unless_faster():
            os.rename(former, place)
    _clear(stage / "new", names)
    _clear(former, names)
    (stage / JOURNAL).unlink(missing_ok=True)
    try:
        stage.rmdir()
    except OSError:
        log.warning("%s holds what distillc did not write; it stays there", stage)


def _clear(folder: Path, names: Container[str]) -> None:
    """Remove the files that a bundle lists, or `names` where it has no manifest yet."""
    if not _is_own_folder(folder):
        return
    ours = our_files(folder)
    keep = _foreign(folder) if ours else ()
    for entry in list(os.scandir(folder)):
        if _is_listed(entry, ours or names) and entry.name not in keep:
            os.unlink(entry)
    with suppress(OSError):
        folder.rmdir()


def _is_own_folder(path: Path) -> bool:
    """Say whether a path is a folder of this user, and no link to one."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _take(place: Path, stage: Path, overwrite: bool) -> None:
    """Give the name to "new" in `stage`; what has it now becomes "new" there, or "former"."""
    for _ in range(TRIES):
        with _unless_faster():
            _refuse_taken(place, overwrite)
            if os.path.lexists(place):
                if exchange(stage / "new", place):
                    return
                _clear(stage / "former", ())  # of an earlier try, replaced by another process
                os.rename(place, stage / "former")
            os.rename(stage / "new", place)
            return
    raise StorageError(
        "other processes keep writing this bundle", where=str(place), hint="wait for them to end"
    )


@contextmanager
def _unless_faster() -> Iterator[None]:
    """End the block early where another process took or left the name between two steps."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.ENOENT):
            raise


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
