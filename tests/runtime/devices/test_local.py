"""Devices: the host and the emulator run the same network to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distillc.errors import DeviceError, UsageError
from distillc.runtime.bundle import LIBRARY, Bundle
from distillc.runtime.devices import LOCAL, get_device, get_local_device, local
from distillc.runtime.devices.local import missing_parts

X = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)


def test_known_devices() -> None:
    assert list(LOCAL) == ["host", "emulator"]
    assert get_device("host").name == "host"
    with pytest.raises(UsageError, match="unknown device 'gpu'") as caught:
        get_device("gpu")
    assert "known devices: host, emulator, ssh:user@host[:port], adb[:serial]" in str(caught.value)
    with pytest.raises(UsageError, match="no device that loads libraries"):
        get_local_device("adb")


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
