"""Standard streams that are closed, full, or pipes that nobody reads any more."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distillc.errors import reason

STORAGE = 11
PIPE_CLOSED = 141
"""Exit code where nobody reads standard output any more: 128 + SIGPIPE, as of other programs."""


class _OutputLostError(BaseException):
    """Standard output cannot be written; no `except Exception` on the way is to swallow it."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class _Output(io.FileIO):
    """Standard output, which says so where it cannot be written."""

    def __init__(self, closed: bool) -> None:
        super().__init__(1, "w", closefd=False)
        self._reason = OSError(errno.EBADF, "it is closed") if closed else None

    def write(self, data: Any) -> int:
        try:
            if self._reason:
                raise self._reason
            return super().write(data)
        except OSError as error:
            raise _OutputLostError(error) from error


class _Complaints(io.FileIO):
    """Standard error: where it cannot be written, there is nobody left to be told."""

    def __init__(self) -> None:
        super().__init__(2, "w", closefd=False)

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Run a command on the streams that the process was given, whatever they are.

    A closed one is opened on nothing: the next file would get its number, and whatever is printed
    would go there. Exits with `PIPE_CLOSED` or `STORAGE` where the output is lost.
    """
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if streams != (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        yield  # somebody reads what a command prints from within this process
        return
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _text(_Output(closed=streams[1] is None), streams[1])
    sys.stderr = _text(_Complaints(), streams[2])
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except _OutputLostError as lost:
        sys.stdout = streams[1]
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is flushed at exit
        if lost.error.errno == errno.EPIPE:
            sys.exit(PIPE_CLOSED)
        sys.stderr.write(f"error: standard output cannot be written: {reason(lost.error)}\n")
        sys.exit(STORAGE)


def _text(raw: io.FileIO, given: Any) -> io.TextIOWrapper:
    """Return a stream of text; what its encoding lacks is escaped."""
    encoding = given.encoding if given else "utf-8"
    stream = io.BufferedWriter(raw)
    return io.TextIOWrapper(stream, encoding, "backslashreplace", line_buffering=raw.isatty())
