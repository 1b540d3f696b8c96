"""A real sshd on loopback, and phones behind the real adb client."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillc.runtime.devices.adb import Adb
from distillc.runtime.devices.ssh import Ssh
from tests.runtime.devices.adb_server import AdbServer

ARM = """#!/bin/sh
# A machine of aarch64: programs start under qemu.
PATH={folder}:$PATH
exec sh -c "$(printf '%s' "$1" | sed 's#[^ ]*-bench-[0-9a-f]* --threads#qemu-aarch64 -cpu max &#')"
"""


@pytest.fixture
def arm_shell(tmp_path: Path) -> Path:
    """A command that runs its argument as a shell of an aarch64 machine does."""
    if not shutil.which("qemu-aarch64"):
        pytest.skip("qemu-aarch64 (Debian: qemu-user) is missing")
    folder = tmp_path / "arm"
    folder.mkdir()
    (folder / "uname").write_text(
        "#!/bin/sh\n[ $1 = -m ] && echo aarch64 || echo 6.6.0-android15\n"
    )
    (folder / "shell").write_text(ARM.format(folder=folder))
    for each in folder.iterdir():
        each.chmod(0o755)
    return folder / "shell"


@pytest.fixture
def start_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ssh]]:
    """Starts sshd with some lines of configuration and returns the device that it is."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not sshd or not shutil.which("ssh"):
        pytest.skip("sshd (Debian: openssh-server, openssh-client) is missing")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(words, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The client reads the configuration of the user that the system knows, not of HOME.
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin" / "ssh"
    options = f"-F none -i {keys}/user -o UserKnownHostsFile={keys}/known"
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {options} "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(Ssh, "folder", str(tmp_path / "there"))
    host_key = (keys / "host.pub").read_text()
    (keys / "known").write_text(f"[127.0.0.1]:{port} {host_key}")
    (keys / "authorized").write_text((keys / "user.pub").read_text())
    started = []

    def start(*lines: str) -> Ssh:
        configuration = tmp_path / "sshd_config"
        settings = [
            f"HostKey {keys}/host",
            f"AuthorizedKeysFile {keys}/authorized",
            f"PidFile {tmp_path}/pid",
            "UsePAM no",
            "StrictModes no",
            *lines,
        ]
        configuration.write_text("\n".join(settings) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        words = [sshd, "-D", "-e", "-p", str(port), "-o", "ListenAddress=127.0.0.1"]
        log = (tmp_path / "sshd.log").open("w")
        started.append(subprocess.Popen([*words, "-f", str(configuration)], stderr=log))
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.05)
        return Ssh(f"127.0.0.1:{port}")

    yield start
    for process in started:
        process.terminate()
        process.wait()


@pytest.fixture
def start_adb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[dict[str, str], Path | str], None]]:
    """Starts an adb server with some phones, whose shells are a command."""
    if not shutil.which("adb"):
        pytest.skip("adb (Debian: adb) is missing")
    servers = []
    (tmp_path / "android").mkdir()
    (tmp_path / "android" / "getprop").write_text("#!/bin/sh\necho 35\n")
    (tmp_path / "android" / "getprop").chmod(0o755)

    def start(phones: dict[str, str], shell: Path | str) -> None:
        words = shlex.split(str(shell))
        server = AdbServer(phones, lambda text: [*words, text], tmp_path / "android")
        servers.append(server)
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.server_address[1]))
        monkeypatch.setattr(Adb, "folder", str(tmp_path / "phone"))

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
