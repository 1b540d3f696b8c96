"""The error family. Every message says what went wrong, where, and what to do next.

Each class maps to one exit code of the command line; the table is printed by `distillc --help`
and is part of the public interface: codes are never reused.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from distillc.printable import printable


def reason(error: BaseException, line: int = 0, longest: int = 200) -> str:
    """Return one line of what an error says, for a message of ours; its name where it says nothing.

    Of an error of the system it is what the system says, without number and file.

    Args:
        error: Anything that was raised.
        line: Which; torch says the reason first, TVM last (-1).
        longest: Characters after which the line is cut.
    """
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    lines = [each.strip() for each in said.splitlines() if each.strip()]
    return (lines or [type(error).__name__])[line][:longest]


def named_reason(error: BaseException) -> str:
    """Return the kind of an unforeseen error and the first line of what it says."""
    return f"{type(error).__name__}: {reason(error)}"


class DistillcError(Exception):
    """Base of every error that a user can cause or fix.

    Names in it may come from files: what a terminal acts on is escaped, long words are shortened.

    Args:
        what: One sentence: what went wrong.
        where: Module path, file, source line or operator; omitted when `what` holds it.
        hint: What to do next.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = printable(what)
        self.where = where and printable(where)
        self.hint = hint and printable(hint)
        super().__init__(self.__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep all parts when it comes from a worker of a cluster."""
        return partial(type(self), where=self.where, hint=self.hint), (self.what,)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  next:  {self.hint}")
        return "\n".join(lines)


class UsageError(DistillcError):
    """A wrong option, an unknown name, or options that contradict each other."""

    exit_code = 2


class CheckpointError(DistillcError):
    """The checkpoint cannot be read, is unsafe, or fits no known architecture."""

    exit_code = 3


class TraceError(DistillcError):
    """The network cannot be exported to a graph, or not at this size."""

    exit_code = 4


class PassError(DistillcError):
    """A pass failed or broke its own contract."""

    exit_code = 5


class PreconditionError(PassError):
    """A pass was run on a network that lacks what it needs."""


class LoweringError(DistillcError):
    """The network cannot be imported, scheduled, compiled or linked."""

    exit_code = 6


class DeviceError(DistillcError):
    """A device is missing, refuses to run the bundle, or fails while running it."""

    exit_code = 7


class VerificationError(DistillcError):
    """Compiled and reference numbers differ, or a bundle is damaged."""

    exit_code = 8


class QualityError(DistillcError):
    """No hybrid meets the quality or speed that was asked for."""

    exit_code = 9


class DataError(DistillcError):
    """Training or test images are missing, unreadable, or do not match."""

    exit_code = 10


class StorageError(DistillcError):
    """A result cannot be written: disk full, no permission, path taken."""

    exit_code = 11


class OutOfMemoryError(DistillcError):
    """The system gives no more memory."""

    exit_code = 12


class ClusterError(DistillcError):
    """A cluster does not answer, or loses the same job again and again."""

    exit_code = 13


def is_memory_error(error: BaseException) -> bool:
    """Whether memory was missing, as Python, the system, torch or the loader say it."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    said = str(error).lower()
    return any(words in said for words in _NO_MEMORY)


_NO_MEMORY = ("failed to map segment", "allocate memory", "bad_alloc", "out of memory")


@contextmanager
def compiler_errors(what: str) -> Iterator[None]:
    """Turn what TVM raises, which is anything, into a `LoweringError` that begins with `what`."""
    try:
        yield
    except DistillcError:
        raise
    except Exception as error:
        raise LoweringError(
            f"{what}: {reason(error, -1, 300)}",
            hint="run with --debug for the compiler's own trace, and report the network",
        ) from error
