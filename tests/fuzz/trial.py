"""One command on hostile input: run in a forked process, measured, judged.

A process of its own for each command would spend five seconds on imports. The fork shares them,
and the worker that reads files; everything else is as in `python -m distillc.cli`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distillc import sandbox
from distillc.printable import escaped

LONGEST_SECONDS = 20.0
LARGEST_BYTES = 4e9
IMPORTS = 20.0
"""Seconds for the imports of a whole process and its worker, which a fork has made before."""

HANGS = 90.0
"""Seconds after which a command is killed."""

DOCUMENTED = (0, *range(2, 12))
"""Exit codes that `distillc --help` lists, without 1 (unexpected) and 130 (interrupted)."""


@dataclass(frozen=True)
class Trial:
    """How a command ended.

    Attributes:
        code: Exit code; negative for a signal.
        seconds: By the clock.
        peak_bytes: Largest resident memory of the process, or of the one that reads its file.
        said: What it wrote, both streams.
        wrong: What must not be, None where all is well.
    """

    code: int
    seconds: float
    peak_bytes: int
    said: str
    wrong: str | None = None


def judged(trial: Trial, longest: float = LONGEST_SECONDS) -> Trial:
    """Return a trial with what is wrong about it; `longest` in seconds."""
    wrong = None
    if trial.code not in DOCUMENTED:
        wrong = f"exit code {trial.code}"
    elif found := re.search(r"Traceback|unexpected \w+(Error|Exception)|core dumped", trial.said):
        wrong = found[0]
    elif trial.said != escaped(trial.said):
        wrong = "control characters in the output"
    elif trial.code and not trial.said.strip():
        wrong = "failed without a word"
    elif len(trial.said) > 100_000:
        wrong = f"wrote {len(trial.said)} characters"
    elif trial.peak_bytes > LARGEST_BYTES:
        wrong = f"took {trial.peak_bytes / 1e9:.1f} GB"
    elif trial.seconds > longest:
        wrong = f"took {trial.seconds:.0f} s"
    return replace(trial, wrong=wrong)


def warm() -> None:
    """Import what commands need and start the worker, once.

    Torch keeps to one thread: in a fork, a pool of threads that the parent had waits for ever.
    """
    import distillc.conversion
    import distillc.frontend.load
    import distillc.frontend.onnx_graph.load
    import distillc.report.tables
    import distillc.runtime.restore  # noqa: F401

    torch.set_num_threads(1)
    sandbox._worker()


def forked(words: Sequence[str], folder: Path) -> Trial:
    """Run a command line in a fork of this process, its working folder `folder`."""
    worker = sandbox._worker()
    log, notes = folder / "said.txt", folder / "peak.txt"
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        _command(words, folder, log, notes, worker)
    code, usage = _end(child)
    peak = max(usage.ru_maxrss * 1024, int(notes.read_text()) if notes.exists() else 0)
    said = log.read_text(errors="surrogateescape") if log.exists() else ""
    return judged(Trial(code, time.monotonic() - begin, peak, said))


def _end(child: int) -> tuple[int, resource.struct_rusage]:
    deadline = time.monotonic() + HANGS
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)


def _command(
    words: Sequence[str], folder: Path, log: Path, notes: Path, worker: sandbox._Worker
) -> None:
    """Be the command: never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT)
        for each in (1, 2):
            os.dup2(stream, each)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        worker.usable = lambda: True  # type: ignore[method-assign] - one command at a time uses it
        ask = worker.ask

        def measured(request: dict[str, Any], files: list[int]) -> dict[str, Any]:
            end = ask(request, files)
            notes.write_text(str(end["peak_bytes"]))
            return end

        worker.ask = measured  # type: ignore[method-assign]
        from distillc.cli import main

        main(list(words))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException as error:
        print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def whole(words: Sequence[str], folder: Path) -> Trial:
    """Run a command line as a process, as a user does; its imports have time of their own."""
    log = folder / "said.txt"
    command = [sys.executable, "-m", "distillc.cli", *words]
    begin = time.monotonic()
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        code, usage = _end(child.pid)
        child.returncode = code
    seconds = time.monotonic() - begin
    said = log.read_text(errors="surrogateescape")
    trial = Trial(code, seconds, usage.ru_maxrss * 1024, said)
    return judged(trial, LONGEST_SECONDS + IMPORTS)


def record(trial: Trial, words: Sequence[str]) -> str:
    """Return a failing case as JSON."""
    facts = {"wrong": trial.wrong, "words": list(words), "said": trial.said[:4000]}
    return json.dumps(facts, indent=1)
