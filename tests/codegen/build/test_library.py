"""build_library: modules become libraries whose numbers are torch's, here and for Arm."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch import nn

from distillc.codegen.build import library as compile_module
from distillc.codegen.build import link
from distillc.codegen.build.library import LibraryInfo, build_library, tvm_target
from distillc.errors import LoweringError, StorageError
from distillc.frontend.trace import export_program
from distillc.runtime.devices import get_device
from distillc.runtime.devices.local import missing_parts
from distillc.surrogates.family import FAMILIES
from distillc.surrogates.specs import build_surrogate
from distillc.targets.base import get_target
from tests.codegen.selective import SelectiveScan

MACHINE = slice(18, 20)  # e_machine of an ELF header
AARCH64 = 183


def awake(spec: str, channels: int, scope: str = "block") -> nn.Module:
    """A surrogate that does something: new ones return their input."""
    module = build_surrogate(spec, channels, scope)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in module.parameters():
            if not weight.any():
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
                weight *= 0.3  # so that blocks in a row do not blow up
    return module


def check(module: nn.Module, shape: tuple[int, ...], path: Path, device: str) -> LibraryInfo:
    target = get_target("host" if device == "host" else "snapdragon8elite")
    info = build_library(export_program(module, shape), target, path)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    y, _ = get_device(device).run([path], x.numpy(), info.output_shape, threads=2)
    with torch.no_grad():
        np.testing.assert_allclose(y, module(x).numpy(), rtol=0, atol=1e-4)
    return info


def test_restormer_on_this_machine(tiny_restormer: nn.Module, tmp_path: Path) -> None:
    info = check(tiny_restormer, (1, 3, 16, 24), tmp_path / "model.so", "host")
    assert info.input_shape == info.output_shape == (1, 3, 16, 24)
    assert info.kernels > 20
    assert [path.name for path in tmp_path.iterdir()] == ["model.so"]


@pytest.mark.parametrize("scope", ["block", "attention"])
@pytest.mark.parametrize("family", FAMILIES.names())
def test_every_family_on_this_machine(family: str, scope: str, tmp_path: Path) -> None:
    check(awake(family, 8, scope), (1, 8, 6, 10), tmp_path / "model.so", "host")


@pytest.mark.parametrize("spec", ["mamba:state=4", "mamba:values=50,width=66", "ssd:width=150"])
def test_odd_channel_counts(spec: str, tmp_path: Path) -> None:
    check(awake(spec, 7), (1, 7, 5, 9), tmp_path / "model.so", "host")


@pytest.mark.parametrize("equal", [False, True])
def test_selective_scans(equal: bool, tmp_path: Path) -> None:
    scanning = SelectiveScan(7, 4, 2, equal).eval()
    check(scanning, (1, 7, 5, 9), tmp_path / "model.so", "host")


class Hybrid(nn.Module):
    """A network with both scans in each of their directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(awake("mamba:state=2", 8), SelectiveScan(8, 2, 2))
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.tail(self.body(self.head(x)))


@pytest.mark.parametrize("kind", ["restormer", "hybrid"])
def test_arm_library_under_the_emulator(
    kind: str, tmp_path: Path, tiny_restormer: nn.Module
) -> None:
    if missing := missing_parts():
        pytest.skip(f"the emulator is not complete: {', '.join(missing)} missing")
    module = tiny_restormer if kind == "restormer" else Hybrid().eval()
    check(module, (1, 3, 32, 32), tmp_path / "model.so", "emulator")


@pytest.mark.parametrize("name", ["snapdragon8elite", "snapdragon8gen3", "generic-aarch64"])
def test_every_arm_target_builds_an_arm_library(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    build_library(export_program(awake("mamba", 8), (1, 8, 8, 8)), get_target(name), path)
    header = path.read_bytes()[:64]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[MACHINE], "little") == AARCH64


@pytest.mark.parametrize("name", ["host", "snapdragon8elite"])
def test_a_library_needs_the_c_library_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    build_library(export_program(awake("mamba", 8), (1, 8, 8, 8)), get_target(name), path)
    shown = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True)
    needed = re.findall(r"NEEDED.*\[(.*)\]", shown.stdout)
    assert all(each.startswith(("libc.so", "libpthread.so", "ld-linux")) for each in needed)
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True
    )
    exported = [line.split()[-1] for line in shown.stdout.splitlines()]
    assert exported
    assert all(each.startswith("distillc_") for each in exported)


def test_output_of_another_size(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    info = check(module, (1, 3, 8, 10), tmp_path / "model.so", "host")
    assert info.output_shape == (1, 3, 16, 20)


def fails(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_failures_leave_nothing_and_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = export_program(nn.Conv2d(3, 3, 1), (1, 3, 8, 8))
    host, path = get_target("host"), tmp_path / "model.so"
    monkeypatch.setattr(link, "run_zig", lambda *_: "no linker")
    with pytest.raises(LoweringError, match="linking for host failed: no linker"):
        build_library(program, host, path)
    monkeypatch.setattr(link, "run_zig", fails(OSError(28, "no space")))
    with pytest.raises(StorageError, match="disk is full"):
        build_library(program, host, path)
    monkeypatch.setattr(tvm.tirx, "build", fails(RuntimeError("LLVM said\nno such register")))
    with pytest.raises(LoweringError, match="building for host failed: no such register"):
        build_library(program, host, path)
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_kernels_llvm_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compile_module, "_ROOM", 1 << 60)
    program = export_program(nn.Conv2d(3, 3, 1), (1, 3, 8, 8))
    with pytest.raises(StorageError, match="disk is full"):
        build_library(program, get_target("host"), tmp_path / "x.so")
    assert not list(tmp_path.iterdir())


def test_tvm_target_takes_the_features() -> None:
    described = tvm_target(get_target("snapdragon8gen3"))
    assert described.attrs["mcpu"] == "cortex-x4"
    assert list(described.attrs["mattr"]) == ["-sve", "-sve2"]
    assert "mattr" not in tvm_target(get_target("snapdragon8elite")).attrs
