"""setup_emulator: installs what is missing, and says in one line what could not be."""

from __future__ import annotations

import pytest

from distillc.runtime import setup_emulator
from distillc.runtime.setup_emulator import main

PARTS = ["qemu-aarch64 (Debian: qemu-user)", "the aarch64 C library (Debian: libc6-arm64-cross)"]


class Machine:
    """Records the commands; each installs its part if the machine allows it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: bool, tools: set[str]) -> None:
        self.missing = list(PARTS)
        self.commands: list[list[str]] = []
        self.built = 0
        monkeypatch.setattr(setup_emulator, "missing_parts", lambda: list(self.missing))
        monkeypatch.setattr(setup_emulator, "build_runner", self.build)
        monkeypatch.setattr(setup_emulator.os, "geteuid", lambda: 0 if root else 1000)
        monkeypatch.setattr(
            setup_emulator.shutil, "which", lambda tool: tool if tool in tools else None
        )
        monkeypatch.setattr(setup_emulator.subprocess, "run", self.run)

    def build(self, triple: str) -> None:
        self.built += 1

    def run(self, command: list[str], **_: object) -> None:
        self.commands.append(command)
        if "install" in command:
            self.missing = []


def test_root_installs_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(monkeypatch, root=True, tools={"apt-get"})
    assert main() == 0
    update, install = machine.commands
    assert update == ["apt-get", "-qq", "update"]
    assert install[:4] == ["apt-get", "-qq", "install", "-y"]
    assert "libc6-arm64-cross" in install
    assert machine.built == 1
    assert capsys.readouterr().out == "emulation is ready\n"


def test_sudo_is_never_asked_for_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, root=False, tools={"apt-get", "sudo"})
    main()
    assert all(command[:2] == ["sudo", "-n"] for command in machine.commands[:2])


@pytest.mark.parametrize("tools", [set(), {"apt-get"}])
def test_without_rights_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tools: set[str]
) -> None:
    machine = Machine(monkeypatch, root=False, tools=tools)
    assert main() == 0
    assert [command[0] for command in machine.commands] != ["apt-get"]
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "left out, missing: qemu-aarch64" in out
    assert "sudo apt-get install qemu-user" in out
    assert machine.built == 0


def test_nothing_is_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, root=True, tools={"apt-get"})
    machine.missing = []
    assert main() == 0
    assert machine.commands == []
