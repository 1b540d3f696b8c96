"""The C example: compiled against a bundle's header and library, here and for Arm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import distillc
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices.local import AARCH64_SYSTEM, missing_parts
from distillc.targets.base import get_target
from distillc.zig import run_zig

SOURCE = Path(__file__).parents[2] / "examples" / "app" / "restore.c"


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return nn.Sequential(*layers).eval()


def build(folder: Path, target: str) -> tuple[Bundle, Path]:
    bundle = distillc.compile(network(), target=target, size=(20, 32), directory=folder)
    program, link = folder / "restore", get_target(target).link
    words = ["-O2", "-Wall", "-Werror", f"-I{bundle.path}", SOURCE, bundle.library]
    system = ["-target", link] if link else []
    assert run_zig("cc", *words, *system, f"-Wl,-rpath,{bundle.path}", "-o", program) is None
    return bundle, program


@pytest.mark.parametrize("target", ["host", "snapdragon8elite"])
def test_it_restores_a_picture(target: str, tmp_path: Path) -> None:
    command = []
    if target != "host":
        if missing := missing_parts():
            pytest.skip(f"the emulator is not complete: {', '.join(missing)} missing")
        if qemu := shutil.which("qemu-aarch64"):
            command = [qemu, "-cpu", "max", "-L", str(AARCH64_SYSTEM)]
    folder = tmp_path / "bundle"
    folder.mkdir()
    _, program = build(folder, target)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.ppm")
    words = [*command, str(program), str(tmp_path / "in.ppm"), str(tmp_path / "out.ppm")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "2 threads: " in done.stdout
    found = np.asarray(Image.open(tmp_path / "out.ppm"))
    with torch.no_grad():
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        wanted = network()(x)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    assert np.abs(found - wanted).max() <= 0.51


def test_an_image_of_another_size(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    _, program = build(folder, "host")
    Image.fromarray(np.zeros((20, 31, 3), np.uint8)).save(tmp_path / "in.ppm")
    words = [str(program), str(tmp_path / "in.ppm"), str(tmp_path / "out.ppm")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "not a PPM file of the network's size" in done.stderr
