"""Programs that distillc starts end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distillc.children import with_us

START = """
import signal, subprocess, sys
from distillc.children import with_us
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script
subprocess.run(with_us(["sleep", sys.argv[1]]))
"""


def sleepers(seconds: str) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if each.read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(int(each.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(how: signal.Signals) -> None:
    seconds = f"86{os.getpid()}.{how:d}"
    process = subprocess.Popen([sys.executable, "-c", START, seconds], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not sleepers(seconds) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(sleepers(seconds)) == 1
    process.send_signal(how)
    process.wait(60)
    while sleepers(seconds) and time.monotonic() < end:
        time.sleep(0.05)
    assert sleepers(seconds) == []


def test_output_input_and_codes_are_the_commands() -> None:
    done = subprocess.run(with_us(["sh", "-c", "cat; exit 7"]), input=b"x", capture_output=True)
    assert (done.returncode, done.stdout) == (7, b"x")


def test_an_environment_of_its_own() -> None:
    done = subprocess.run(with_us(["env"], {"A": "1 2", "B": "="}), capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == ["A=1 2", "B=="]


def test_a_command_that_is_missing() -> None:
    done = subprocess.run(with_us(["no-such-command"]), capture_output=True, text=True)
    assert done.returncode == 127
    assert done.stderr == "no-such-command: No such file or directory\n"
