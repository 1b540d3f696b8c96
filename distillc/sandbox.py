"""Reading strangers' files in a process of its own, without network, in bounded memory and time.

What comes back is plain data: a JSON value, and a file that the reader checks.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillc import errors
from distillc.errors import CheckpointError, DistillcError, UsageError, reason
from distillc.sandbox_worker import PATIENCE, resolve

log = logging.getLogger(__name__)

START_SECONDS = 120.0
"""For the worker's import of torch, on a busy machine too."""

SLACK_SECONDS = 30.0
"""For the worker's imports of what a request names."""

TRUST = "if you made the file yourself, add --no-sandbox (in Python: sandbox=False)"


@dataclass(frozen=True)
class ProcessLimits:
    """What reading may take.

    Attributes:
        seconds: Time on two idle cores; a busy machine has five times as long.
        memory: Bytes beside what an idle process has, and bytes of the result.
    """

    seconds: float
    memory: int


@contextmanager
def outcome(
    function: str, path: Path, *arguments: Any, limits: ProcessLimits | None
) -> Iterator[tuple[Any, Path]]:
    """Within it, what a function of ours made of a file: its value, and the file that it wrote.

    Args:
        function: `module:name`; called with the path, the arguments and the path of a new file,
            returns a JSON value.
        path: The stranger's file, absolute for the worker.
        arguments: JSON values.
        limits: Of the other process; None calls the function in this one.

    Raises:
        DistillcError: What the function raised.
        CheckpointError: It crashed, or reached a limit.
        UsageError: The system cannot do it.
    """
    with _memory_file("result") as out:
        made = Path(f"/proc/self/fd/{out}")
        if limits is None:
            yield resolve(function)(str(path), *arguments, str(made)), made
            return
        with _memory_file("reply") as reply:
            request = {
                "function": function,
                "arguments": [str(path.absolute()), *arguments],
                "seconds": limits.seconds,
                "memory": limits.memory,
            }
            end = _worker().ask(request, [reply, out])
            yield _value(end, os.pread(reply, os.fstat(reply).st_size, 0), path, limits), made


def _value(end: dict[str, Any], reply: bytes, path: Path, limits: ProcessLimits) -> Any:
    """Return the function's value, or raise what it raised or why there is none."""
    where = str(path)
    try:
        answer = json.loads(reply or b"{}")
    except ValueError:
        answer = {}
    if end["late"]:
        raise CheckpointError(
            f"reading the file takes longer than {limits.seconds:.0f} s", where=where, hint=TRUST
        )
    if "exhausted" in answer:
        raise CheckpointError(
            f"reading the file takes more than {limits.memory / 2**30:.1f} GiB of memory",
            where=where,
            hint=TRUST,
        )
    if end["code"] or not answer:
        how = f"signal {-end['code']}" if end["code"] < 0 else "without an answer"
        raise CheckpointError(
            f"the process that reads the file ended: {how}",
            where=where,
            hint="the file is damaged or hostile; copy or download it again",
        )
    if "error" in answer:
        name, what, place, hint = answer["error"]
        found = getattr(errors, name, None)
        known = isinstance(found, type) and issubclass(found, DistillcError)
        kind: type[DistillcError] = found if known else CheckpointError  # type: ignore[assignment]
        # The worker knows the absolute path; messages name the file as the user did.
        place = place and place.replace(str(path.absolute()), where)
        raise kind(what, where=place, hint=hint)
    if "failure" in answer:
        raise CheckpointError(f"the file cannot be read: {answer['failure']}", where=where)
    return answer["value"]


@contextmanager
def _memory_file(name: str) -> Iterator[int]:
    try:
        file = os.memfd_create(name)
    except (AttributeError, OSError) as error:
        raise _unable(reason(error)) from error
    try:
        yield file
    finally:
        os.close(file)


def _unable(why: str) -> UsageError:
    return UsageError(
        f"this system cannot read files in a process of its own: {why}",
        hint="add --no-sandbox (in Python: sandbox=False) for files whose maker you trust",
    )


class _Worker:
    """A running worker; it ends with this process, whose end of the socket closes."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as said:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "distillc.sandbox_worker", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # an interrupt is ours to handle
                )
            except OSError as error:
                raise _unable(reason(error)) from error
            theirs.close()
            try:
                facts = self._receive(START_SECONDS)
            except (OSError, ValueError) as error:
                self.close()
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                raise _unable(lines[-1] if lines else reason(error)) from error
        if facts["network"]:
            log.warning("the system does not let the process that reads files leave the network")

    def ask(self, request: dict[str, Any], files: list[int]) -> dict[str, Any]:
        """Send a request and return how the child ended."""
        with self.lock:
            try:
                socket.send_fds(self.channel, [json.dumps(request).encode()], files)
                return self._receive(PATIENCE * request["seconds"] + SLACK_SECONDS)
            except BaseException as error:
                self.close()  # the child ends too
                if isinstance(error, OSError | ValueError):
                    raise _unable(f"it does not answer ({error})") from error
                raise

    def usable(self) -> bool:
        """Whether it runs, and is this process's own."""
        return self.owner == os.getpid() and self.process.poll() is None

    def close(self) -> None:
        """End it."""
        self.channel.close()
        if self.owner == os.getpid():
            self.process.kill()
            self.process.wait()

    def _receive(self, seconds: float) -> dict[str, Any]:
        self.channel.settimeout(seconds)
        answer: dict[str, Any] = json.loads(self.channel.recv(2**16))
        return answer


_running: list[_Worker] = []
_starting = threading.Lock()


def _worker() -> _Worker:
    with _starting:
        if not (_running and _running[0].usable()):
            _running[:] = [_Worker()]
        return _running[0]


def start_early() -> None:
    """Start the process that reads files, beside what this one does: both import torch first.

    Why there is none is said where a file is read.
    """

    def start() -> None:
        with suppress(DistillcError):
            _worker()

    threading.Thread(target=start, daemon=True).start()


@atexit.register
def _close() -> None:
    for worker in _running:
        if worker.owner == os.getpid():
            with suppress(OSError):
                worker.close()
