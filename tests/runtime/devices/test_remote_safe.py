"""What others put on a device is never run, and nothing there outlives the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distillc.errors import DeviceError
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices.ssh import Ssh
from tests.runtime.devices.test_remote import StartAdb, StartSshd, X, there

RUN = """
import sys
from distillc.cli import main
from distillc.runtime.devices.adb import Adb
from distillc.runtime.devices.ssh import Ssh
Ssh.folder, Adb.folder = sys.argv[1:3]
main(sys.argv[3:])
"""


def processes(folder: Path) -> list[str]:
    """The command lines that name something in a folder, but for the command under test."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].startswith(str(folder)) or any(
            word.startswith(f"{folder}/run-") for word in words
        ):
            found.append(" ".join(words))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_planted_program_is_not_run(
    verified: Bundle, start_sshd: StartSshd, tmp_path: Path
) -> None:
    device = start_sshd().name
    wanted = verified.run(X, device)
    (program,) = there(tmp_path).glob("*-bench-*")
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    np.testing.assert_array_equal(verified.run(X, device), wanted)
    assert not (tmp_path / "ran").exists()
    assert program.read_bytes()[:4] == b"\x7fELF"


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def of_another(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)


def a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [open_to_all, of_another, a_link])
@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_a_folder_of_others_is_refused(
    verified: Bundle,
    start_sshd: StartSshd,
    start_adb: StartAdb,
    tmp_path: Path,
    make: Callable[[Path], None],
    kind: str,
) -> None:
    if make is of_another and os.geteuid():
        pytest.skip("only root gives folders to others")
    name = "phone" if kind == "adb" else "there"
    make(tmp_path / f"{name}-{os.getuid()}")
    if kind == "ssh":
        device = start_sshd().name
    else:
        start_adb({"R5CX": "device"}, "sh -c")
        device = "adb"
    with pytest.raises(DeviceError, match="others could put programs into") as caught:
        verified.run(X, device)
    assert "remove it there" in str(caught.value)


def test_the_folder_is_private(verified: Bundle, start_sshd: StartSshd, tmp_path: Path) -> None:
    verified.run(X, start_sshd().name)
    folder = there(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(each.stat().st_mode & 0o777 == 0o700 for each in folder.iterdir())


def test_a_device_without_sha256sum(
    verified: Bundle, start_sshd: StartSshd, tmp_path: Path
) -> None:
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\nexec sh -c "$(printf \'%s\' "$1" | sed s/sha256sum/no-such/g)"\n')
    shell.chmod(0o755)
    device = start_sshd(f'ForceCommand {shell} "$SSH_ORIGINAL_COMMAND"').name
    with pytest.raises(DeviceError, match="is not what was sent") as caught:
        verified.run(X, device)
    assert "sha256sum" in str(caught.value)


@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_a_killed_command_leaves_nothing_there(
    verified: Bundle, start_sshd: StartSshd, start_adb: StartAdb, tmp_path: Path, kind: str
) -> None:
    if kind == "ssh":
        device, folder = start_sshd().name, there(tmp_path)
    else:
        start_adb({"R5CX": "device"}, "sh -c")
        device, folder = "adb", tmp_path / f"phone-{os.getuid()}"
    places = [Ssh.folder, str(tmp_path / "phone")]
    words = ["bench", str(verified.path), "--device", device, "--runs", "1000000"]
    command = [sys.executable, "-c", RUN, *places, *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        timed = f"--runs {1000000 // 3}"
        assert wait_for(lambda: any(timed in each for each in processes(folder)))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert wait_for(lambda: not processes(folder), 20), processes(folder)
    assert [each.name for each in folder.glob("run-*")] == []


def test_a_killed_command_leaves_no_scratch_folder(
    verified: Bundle, start_sshd: StartSshd, tmp_path: Path
) -> None:
    device, folder = start_sshd(), there(tmp_path)
    script = (
        "import sys, time\n"
        "from distillc.runtime.devices.ssh import Ssh\n"
        "Ssh.folder = sys.argv[1]\n"
        "with Ssh(sys.argv[2])._scratch() as place:\n"
        "    print(place, flush=True)\n"
        "    time.sleep(600)\n"
    )
    words = [sys.executable, "-c", script, Ssh.folder, device.name.removeprefix("ssh:")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    place = Path(process.stdout.readline().strip())
    assert place.parent == folder
    assert place.is_dir()
    process.kill()
    process.wait()
    assert wait_for(lambda: not place.exists(), 20)
