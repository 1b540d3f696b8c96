"""Commands that run elsewhere: started here, and ended there when this process ends."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distillc.children import with_us
from distillc.errors import DeviceError

SHORT_S = 60.0
"""Seconds for what moves no large file and computes nothing."""


@dataclass(frozen=True)
class Answer:
    """What a command said: exit code, standard output, the last line of standard error."""

    code: int
    output: bytes
    complaint: str


def ask(command: Sequence[str], timeout_s: float, what: str, given: bytes | None = b"") -> Answer:
    """Run a command here that talks to a device.

    Args:
        command: The program and its arguments.
        timeout_s: Seconds after which it is stopped.
        what: What it does, for messages.
        given: Its standard input; None for one that stays open as long as this process lives.

    Raises:
        DeviceError: It takes too long.
    """
    words = with_us(command)
    try:
        if given is None:
            with _silent_pipe() as stdin:
                done = subprocess.run(words, capture_output=True, timeout=timeout_s, stdin=stdin)
        else:
            done = subprocess.run(words, capture_output=True, timeout=timeout_s, input=given)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"{what}: no answer within {timeout_s:.0f} s",
            hint="see that the device is awake and connected: `distillc doctor` looks at it",
        ) from error
    return Answer(done.returncode, done.stdout, _last_line(done.stderr))


@contextmanager
def _silent_pipe() -> Iterator[int]:
    """Give the reading end of a pipe to which nobody writes."""
    ends = os.pipe()
    try:
        yield ends[0]
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def kept_open(command: Sequence[str]) -> Iterator[Answer]:
    """Run a command until the block ends, which says so in a line; give the first line it prints.

    Where this process is killed, the command's input ends without a line.

    Args:
        command: The words.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(with_us(command), stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if line:
            yield Answer(0, line, "")
        else:
            _, errors = process.communicate(timeout=SHORT_S)
            yield Answer(process.returncode or 1, b"", _last_line(errors))
    finally:
        if process.poll() is None:
            try:
                process.communicate(b"\n", timeout=SHORT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def leashed(command: str) -> str:
    """Return a shell's words for a command that is killed when the shell's input ends.

    Args:
        command: Reads no input of its own.
    """
    # `read` and no `cat`: what is left of a killed shell would keep its input and output open.
    return (
        f"exec 3<&0; {command} </dev/null 3<&- & p=$!; "
        "(read -r x <&3; kill -9 $p) >/dev/null 2>&1 & w=$!; "
        "exec 3<&-; wait $p; code=$?; kill $w; exit $code"
    )


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
