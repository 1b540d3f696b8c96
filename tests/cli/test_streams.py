"""Standard streams that are closed, full, or no longer read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = f"{sys.executable} -m distillc.cli"


def shell(text: str, **environment: str) -> tuple[int, str, str]:
    """Run a command line in bash; return exit code (of the first command of a pipe), outputs."""
    words = ["bash", "-c", f"{text}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("targets --json | true", 141, ""),
        ("--help | true", 141, ""),
        ("targets >&-", 11, "standard output cannot be written: it is closed"),
        ("targets --json >/dev/full", 11, "standard output cannot be written: No space left"),
        ("targets >/dev/full 2>/dev/full", 11, ""),
        ("targets <&- 2>&-", 0, ""),
        ("targets 2>/dev/full", 0, ""),
    ],
)
def test_streams_that_fail(words: str, code: int, said: str) -> None:
    found, _, error = shell(f"{COMMAND} {words}")
    assert found == code, error
    assert said in error
    assert "Traceback" not in error
    assert "Exception ignored" not in error


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from distillc.cli.streams import standard_streams\n"
        "with standard_streams():\n"
        f"    file = open({str(tmp_path / 'mine')!r}, 'w')\n"
        "    assert file.fileno() > 2\n"
        "    os.write(2, b'noise')\n"
    )
    done = subprocess.run(["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, script])
    assert done.returncode == 0
    assert (tmp_path / "mine").read_text() == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"COLUMNS": "1"},
        {"TERM": "dumb"},
        {"HOME": "/nonexistent"},
    ],
)
def test_environments(environment: dict[str, str]) -> None:
    code, out, error = shell(f"{COMMAND} targets", **environment)
    assert (code, error) == (0, "")
    assert out


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    code, _, error = shell(f"mkdir {gone}; cd {gone}; rmdir {gone}; {COMMAND} bench x")
    assert (code, "the current folder is gone" in error) == (2, True), error


def test_ctrl_c_in_an_import_ends_the_process_at_once(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(7)\n"
    )
    script = "from distillc.cli.interrupts import survive_imports; survive_imports()"
    words = [sys.executable, "-c", f"{script}; import interrupted"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == 130
    assert done.stderr == "interrupted: finished work is kept; the same command goes on\n"


@pytest.mark.parametrize("delay", [1.0])
def test_ctrl_c(tmp_path: Path, tiny_checkpoint: Path, delay: float) -> None:
    words = ["convert", tiny_checkpoint, "--budget", "smoke", "--work-dir", tmp_path / "work"]
    process = subprocess.Popen(
        [sys.executable, "-m", "distillc.cli", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A command in the background of a script is deaf to it, and so would be its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    assert process.returncode in (130, -signal.SIGINT)
