"""Devices: the host and the emulator run the same network to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distillc.cli.listing import first_line
from distillc.errors import DeviceError, UsageError
from distillc.runtime.bundle import LIBRARY, Bundle
from distillc.runtime.devices import get_device, get_local_device, local, local_devices
from distillc.runtime.devices.base import DEVICES
from distillc.runtime.devices.local import Host, missing_parts

X = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)


def test_known_devices() -> None:
    assert local_devices() == ["emulator", "host"]
    assert get_device("host").name == "host"
    with pytest.raises(UsageError, match="unknown device 'gpu'") as caught:
        get_device("gpu")
    assert "known devices: adb, emulator, host, ssh; see `distillc devices`" in str(caught.value)
    with pytest.raises(UsageError, match="'adb' does not load libraries") as caught:
        get_local_device("adb")
    assert "known are: emulator, host" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "unknown device ''"),
        ("host:1", "'host' takes no address"),
        ("emulator:", "'emulator' takes no address"),
        ("ssh", "write ssh:user@host[:port]"),
        ("ssh:", "write ssh:user@host[:port]"),
    ],
)
def test_addresses_are_given_where_a_device_has_one(name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        get_device(name)
    assert said in str(caught.value)


def test_a_device_takes_what_it_inherits() -> None:
    class Nice(Host):
        name = "nice"

    assert Nice().takes(["host"])
    assert Nice().takes(["phone", "nice"])
    assert not Nice().takes(["emulator"])
    assert not get_device("host").takes(["nice"])
    assert get_device("adb:1").takes(["emulator"])  # programs run anywhere


@pytest.mark.parametrize("kind", DEVICES.names())
def test_every_kind_of_device_says_what_it_is(kind: str) -> None:
    device = DEVICES.find(kind)
    assert device.name == kind
    assert first_line(device)
    if device.address is None:
        assert get_device(kind).name == kind
    elif device.address.startswith("["):
        assert get_device(f"{kind}:one").name == f"{kind}:one"


def test_emulator_and_host_agree(arm: Bundle, verified: Bundle) -> None:
    assert arm.default_device() == "emulator"
    np.testing.assert_allclose(arm.run(X), verified.run(X), atol=1e-5)


def test_threads_do_not_change_the_numbers(verified: Bundle) -> None:
    np.testing.assert_array_equal(verified.run(X, threads=1), verified.run(X, threads=3))


def test_timings_of_several_models(verified: Bundle) -> None:
    library = verified.path / LIBRARY
    _, timing = get_device("host").run([library, library], X, X.shape, threads=1, warmup=1, runs=4)
    assert [len(each) for each in timing.ms] == [4, 4]
    assert all(0 < ms < 1000 for each in timing.ms for ms in each)
    assert timing.peak_bytes > 1 << 20


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF" + bytes(100)])
def test_damaged_library_is_a_device_error(
    verified: Bundle, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="running compiled code failed") as caught:
        get_device("host").run([path], X, X.shape, threads=1)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 7


def test_cut_library_is_a_device_error(verified: Bundle, tmp_path: Path) -> None:
    data = (verified.path / LIBRARY).read_bytes()
    path = tmp_path / "model.so"
    path.write_bytes(data[: len(data) // 4])
    with pytest.raises(DeviceError):
        get_device("host").run([path], X, X.shape, threads=1)


def test_missing_library_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        get_device("host").run([tmp_path / "model.so"], X, X.shape, threads=1)


def test_library_of_another_machine(arm: Bundle, verified: Bundle) -> None:
    with pytest.raises(DeviceError, match="running compiled code failed"):
        get_device("host").run([arm.path / LIBRARY], X, X.shape, threads=1)
    with pytest.raises(DeviceError, match="running compiled code failed"):
        get_device("emulator").run([verified.path / LIBRARY], X, X.shape, threads=1)


def test_input_of_another_shape(verified: Bundle) -> None:
    gray = X[:, :1]
    with pytest.raises(DeviceError, match="with 1 channels"):
        get_device("host").run([verified.path / LIBRARY], gray, X.shape, threads=1)


def test_incomplete_emulator_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "AARCH64_SYSTEM", tmp_path)
    monkeypatch.setattr(local.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(local.shutil, "which", lambda _: None)
    assert [part.partition(" (")[0] for part in missing_parts()] == [
        "qemu-aarch64",
        "the aarch64 C library",
    ]
    with pytest.raises(DeviceError, match="emulator is not complete: qemu-aarch64") as caught:
        get_device("emulator").run([tmp_path / "model.so"], X, X.shape, threads=1)
    assert "setup_emulator" in str(caught.value)


def test_an_arm_machine_needs_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.platform, "machine", lambda: "aarch64")
    assert missing_parts() == []
