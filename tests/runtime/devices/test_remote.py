"""Devices elsewhere: the same numbers, times, and errors that say what to do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from distillc.codegen.tuning.time_modules import Meter
from distillc.errors import DeviceError, UsageError
from distillc.options import ConversionOptions
from distillc.passes import ProfileBlocks
from distillc.preflight import find_meter
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices import get_device
from distillc.runtime.devices.adb import Adb
from distillc.runtime.devices.ssh import Ssh
from distillc.tuning import tune
from tests.passes.toy import toy_network

X = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)
LARGE = np.random.default_rng(2).random((1, 3, 20, 30), dtype=np.float32)

StartSshd = Callable[..., Ssh]
StartAdb = Callable[[dict[str, str], "Path | str"], None]


def there(folder: Path) -> Path:
    """The folder of programs on a device of the tests."""
    return folder / f"there-{os.getuid()}"


def found(device: Ssh | Adb) -> list[tuple[str, bool]]:
    return [(each.what, each.well) for each in device.doctor()]


def test_ssh_computes_what_the_host_does(verified: Bundle, start_sshd: StartSshd) -> None:
    device = start_sshd().name
    for image in (X, LARGE):
        np.testing.assert_array_equal(verified.run(image, device), verified.run(image))
    stats = verified.benchmark(device, threads=1, runs=7, warmup=0)
    assert (stats.runs, stats.device) == (7, device)
    assert 0 < stats.p10_ms <= stats.median_ms <= stats.p90_ms < 1000
    assert stats.peak_bytes > 1 << 16
    assert all(well for _, well in found(Ssh(device.removeprefix("ssh:"))))


def test_ssh_to_an_arm_machine(arm: Bundle, start_sshd: StartSshd, arm_shell: Path) -> None:
    device = start_sshd(f'ForceCommand {arm_shell} "$SSH_ORIGINAL_COMMAND"').name
    np.testing.assert_array_equal(arm.run(X, device), arm.run(X))
    assert get_device(device).name == device


def test_programs_are_sent_once(verified: Bundle, start_sshd: StartSshd, tmp_path: Path) -> None:
    device = start_sshd().name
    verified.run(X, device)
    (program,) = (there(tmp_path)).glob("*-bench-*")
    before = program.stat().st_ino
    verified.run(X, device)
    assert [each.name for each in (there(tmp_path)).iterdir()] == [program.name]
    assert program.stat().st_ino == before


def test_programs_that_nobody_used_for_days_make_room(
    verified: Bundle, start_sshd: StartSshd, tmp_path: Path
) -> None:
    device = start_sshd().name
    folder = there(tmp_path)
    folder.mkdir(mode=0o700)
    for name, days in (("old", 9), ("young", 5)):
        (folder / name).touch()
        age = time.time() - days * 86400
        os.utime(folder / name, (age, age))
    verified.run(X, device)
    names = {each.name.partition("-")[0] for each in folder.iterdir()}
    assert "young" in names
    assert "old" not in names
    (program,) = folder.glob("*-bench-*")
    os.utime(program, (0, 0))
    verified.run(X, device)
    assert program.stat().st_mtime > time.time() - 600


def test_adb_computes_what_the_emulator_does(
    arm: Bundle, start_adb: StartAdb, arm_shell: Path
) -> None:
    start_adb({"R5CX": "device"}, arm_shell)
    for device in ("adb", "adb:R5CX"):
        np.testing.assert_array_equal(arm.run(LARGE, device), arm.run(LARGE))
    assert arm.benchmark("adb", threads=1, runs=3, warmup=0).runs == 3
    assert all(well for _, well in found(Adb()))


def test_blocks_are_timed_there(start_sshd: StartSshd, tmp_path: Path) -> None:
    device = start_sshd().name
    net = toy_network()
    net = net.with_(candidates={name: found[:1] for name, found in net.candidates.items()})
    net = ProfileBlocks(1, rounds=1, runs=3, device=device)(net)
    assert all(block.latency_ms for block in net.blocks)
    assert all(each.latency_ms for found in net.candidates.values() for each in found)
    assert net.metrics["profile"]["device"] == device
    assert list((there(tmp_path)).glob("*.so-*"))


def test_kernels_are_tuned_there(start_sshd: StartSshd, tmp_path: Path) -> None:
    device = start_sshd().name
    records = tmp_path / "records.jsonl"
    result = tune(
        [nn.Conv2d(3, 8, 3, padding=1)], "host", [(16, 16)], 0.5, device=device, records=records
    )
    assert (result.unit, len(result.records)) == ("ms", 1)
    assert 0 < result.records[0].cost <= result.records[0].default
    assert records.read_text().count("\n") == 1
    assert list((there(tmp_path)).iterdir()) == []


def test_the_emulator_has_no_clock() -> None:
    with pytest.raises(UsageError, match="the times of emulator mean nothing"):
        ConversionOptions(measure_on="emulator")
    assert find_meter(ConversionOptions(measure_on="host")) == Meter("host", "host")


def test_another_architecture(verified: Bundle, start_adb: StartAdb, arm_shell: Path) -> None:
    start_adb({"R5CX": "device"}, arm_shell)
    with pytest.raises(DeviceError, match=r"the program is for x86_64, adb is aarch64") as caught:
        verified.run(X, "adb")
    assert caught.value.hint == "convert for another --target"


@pytest.mark.parametrize(
    ("phones", "name", "message"),
    [
        ({}, "adb", "no phone is connected: see the cable"),
        ({"A": "unauthorized"}, "adb", "unlock it and allow USB debugging"),
        ({"A": "offline"}, "adb", "the phone is offline"),
        ({"A": "device", "B": "device"}, "adb", "several are connected, name one: adb:A, adb:B"),
        ({"A": "device"}, "adb:C", "no phone C; connected: A"),
    ],
)
def test_phones_that_are_not_ready(
    arm: Bundle, start_adb: StartAdb, phones: dict[str, str], name: str, message: str
) -> None:
    start_adb(phones, "sh -c")
    with pytest.raises(DeviceError, match=message) as caught:
        arm.run(X, name)
    assert f"distillc doctor --device {name}" in str(caught.value)
    assert not list(get_device(name).doctor())[-1].well


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "too little memory"),
        ("echo cannot write: No space left on device >&2; exit 1", "no space left"),
        ("echo nothing", "printed no result"),
        ("echo bench: the weights are damaged >&2; exit 1", "the weights are damaged"),
        ("exit 7", "exit code 7"),
    ],
)
@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_programs_that_fail(
    verified: Bundle,
    start_sshd: StartSshd,
    start_adb: StartAdb,
    tmp_path: Path,
    kind: str,
    script: str,
    message: str,
) -> None:
    shell = tmp_path / "shell"
    (tmp_path / "program").write_text(f"{script}\n")
    rule = f"s#[^ ]*-bench-[0-9a-f]* --threads#sh {tmp_path}/program#"
    shell.write_text(f"#!/bin/sh\nexec sh -c \"$(printf '%s' \"$1\" | sed '{rule}')\"\n")
    shell.chmod(0o755)
    if kind == "ssh":
        device = start_sshd(f'ForceCommand {shell} "$SSH_ORIGINAL_COMMAND"').name
    else:
        start_adb({"R5CX": "device"}, shell)
        device = "adb"
    with pytest.raises(DeviceError, match=message):
        verified.run(X, device)


def test_ssh_that_cannot_be_reached(start_sshd: StartSshd) -> None:
    with pytest.raises(DeviceError, match="Connection refused") as caught:
        Ssh("127.0.0.1:1").ready()
    assert "see that sshd runs there" in str(caught.value)
    refused = start_sshd("AuthenticationMethods password")
    with pytest.raises(DeviceError, match="Permission denied"):
        refused.ready()


def test_a_folder_that_cannot_be_written(
    verified: Bundle, start_sshd: StartSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = start_sshd()
    monkeypatch.setattr(Ssh, "folder", "/proc/distillc")
    with pytest.raises(DeviceError, match="cannot create directory"):
        verified.run(X, device.name)
    assert found(device)[-1] == ("folder", False)
