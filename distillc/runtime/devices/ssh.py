"""A machine that OpenSSH reaches: `ssh:user@host` or `ssh:user@host:port`."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from distillc.errors import DeviceError, UsageError
from distillc.runtime.devices.asking import SHORT_S, Answer, ask
from distillc.runtime.devices.base import TIMEOUT_S, Finding
from distillc.runtime.devices.remote import RemoteDevice

UNREACHED = 255
"""OpenSSH's own exit code; others are the command's."""

HINTS = {
    "Permission denied": "set up a key there: `ssh-copy-id`",
    "Host key verification failed": "log in once by hand and accept its key",
    "REMOTE HOST IDENTIFICATION": "its key changed: see whether that is right",
    "Could not resolve": "see how the host is spelt",
    "Connection refused": "see that sshd runs there",
    "timed out": "see that the machine is on and in the same network",
}


class Ssh(RemoteDevice):
    """A machine that OpenSSH reaches.

    See `RemoteDevice`.

    Args:
        address: `user@host`, `host`, or either with `:port`; what `~/.ssh/config` says holds.

    Raises:
        UsageError: There is no host in it.
    """

    name = "ssh"
    address: ClassVar[str | None] = ":user@host[:port]"
    folder: ClassVar[str] = "/tmp/distillc"

    def __init__(self, address: str) -> None:
        host, colon, port = address.rpartition(":")
        if not colon:
            host, port = address, ""
        if not host or host.startswith("-") or (colon and not port.isdigit()):
            raise UsageError(f"no host in {address!r}", hint="write ssh:user@host[:port]")
        self.name = f"ssh:{address}"
        self._host = host
        self._options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
        if port:
            self._options += ["-p", port]

    def words(self, command: str) -> list[str]:
        """See `RemoteDevice.words`."""
        return ["ssh", *self._options, self._host, command]

    def shell(self, command: str, timeout_s: float = SHORT_S, given: bytes | None = b"") -> Answer:
        """See `RemoteDevice.shell`."""
        answer = ask(self.words(command), timeout_s, self.name, given)
        if answer.code == UNREACHED:
            hints = [hint for text, hint in HINTS.items() if text in answer.complaint]
            raise DeviceError(
                f"{self.name} cannot be reached: {answer.complaint or 'the connection was lost'}",
                hint=hints[0] if hints else f"try `ssh {self._host}` by hand",
            )
        return answer

    def push(self, local: Path, remote: str) -> Answer:
        """See `RemoteDevice.push`."""
        return self.shell(f"cat > {shlex.quote(remote)}", TIMEOUT_S, local.read_bytes())

    def pull(self, remote: str, local: Path) -> Answer:
        """See `RemoteDevice.pull`."""
        answer = self.shell(f"cat {shlex.quote(remote)}", TIMEOUT_S)
        local.write_bytes(answer.output)
        return answer

    def reach(self) -> Iterator[Finding]:
        """See `RemoteDevice.reach`."""
        client = shutil.which("ssh")
        yield Finding("client", bool(client), client or "ssh (Debian: openssh-client) is missing")
        if not client:
            return
        try:
            answer = self.shell("echo here", SHORT_S)
        except DeviceError as error:
            yield Finding("connection", False, str(error))
            return
        here = answer.output.split()[-1:] == [b"here"]
        yield Finding("connection", here, self._host if here else "its shell runs no commands")
