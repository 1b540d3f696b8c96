"""Ctrl-C at any time, while libraries are imported too."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import click

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as of other programs."""

MESSAGE = "interrupted: finished work is kept; the same command goes on"


def survive_imports() -> None:
    """Let Ctrl-C during an import end the process at once.

    Python would raise KeyboardInterrupt there, and where the code of a library in C++ is on the
    stack it ends the process by SIGABRT. A handler that somebody else has set stays.
    """
    here = threading.current_thread() is threading.main_thread()
    if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            click.echo(MESSAGE, err=True)
            os._exit(INTERRUPTED)  # whatever is kept is written whole
        frame = frame.f_back
    raise KeyboardInterrupt
