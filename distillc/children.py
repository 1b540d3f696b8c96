"""Programs that distillc starts: they end with it, also when it is killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

_LAUNCH = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        print(f"{sys.argv[2]}: {error.strerror}", file=sys.stderr)
sys.exit(127)
"""
"""Becomes the program, once the kernel knows that it is to end with its parent.

A function that runs between fork and exec would do without it, but is not safe in a process with
threads, of which torch has many.
"""


def with_us(command: Sequence[object], environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the words that start a command which ends when this process does, however that ends.

    Elsewhere than on Linux they are the command's own. A command that cannot be started exits with
    127.

    Args:
        command: The words.
        environment: All that it gets of an environment; None for ours.
    """
    words = [str(word) for word in command]
    if environment is not None:
        pairs = [f"{name}={value}" for name, value in environment.items()]
        words = ["env", "-i", *pairs, *words]
    if sys.platform != "linux":
        return words
    return [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *words]
