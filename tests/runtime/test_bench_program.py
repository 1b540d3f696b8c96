"""The program of a bundle: it checks itself, times, and restores pictures of any size."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from distillc.codegen.build.library import build_library
from distillc.codegen.build.self_check import SelfCheck, check_image
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target
from tests.c_api import Library

SHAPE = (1, 3, 16, 24)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return nn.Sequential(*layers).eval()


def build(folder: Path, target: str, wrong: float = 0.0) -> tuple[Path, Path]:
    """Return library and program."""
    module = network()
    with torch.no_grad():
        expected = module(torch.from_numpy(check_image(SHAPE))).numpy() + wrong
    library, program = folder / "model.so", folder / "bench"
    check = SelfCheck(expected, 1e-4)
    build_library(
        export_program(module, SHAPE),
        get_target(target),
        library,
        name="small",
        bench=(program, check),
    )
    return library, program


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("bench"), "host")


def start(program: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *words], capture_output=True, text=True, cwd=folder, env={}, timeout=60
    )


def report(program: Path, folder: Path, *words: str) -> dict[str, Any]:
    done = start(program, folder, *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_checks_and_times(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = report(made[1], tmp_path, "--threads", "2", "--runs", "11", "--warmup", "1")
    assert (found["name"], found["target"], found["threads"]) == ("small", "host", 2)
    assert (found["width"], found["height"]) == (24, 16)
    assert found["max_error"] <= found["tolerance"] <= 1.1e-4
    low, median, high = np.percentile(found["ms"], (10, 50, 90))
    assert len(found["ms"]) == 11
    assert found["median_ms"] == pytest.approx(median, rel=1e-4)
    assert found["p10_ms"] == pytest.approx(low, rel=1e-4)
    assert found["p90_ms"] == pytest.approx(high, rel=1e-4)
    assert all(step["kernel"] and step["ms"] > 0 for step in found["steps"])
    assert found["create_ms"] > 0
    assert found["peak_bytes"] > found["planned_bytes"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(16, 24), (7, 30), (40, 50)])
def test_it_restores_as_the_library_does(
    made: tuple[Path, Path], size: tuple[int, int], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    np.save(tmp_path / "in.npy", x)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    for ending in ("npy", "png"):
        words = ["--runs", "0", "--overlap", "5", "--picture", f"in.{ending}", f"out.{ending}"]
        found = report(made[1], tmp_path, *words)
        assert found["picture"]["width"] == size[1]
    wanted = Library(made[0]).restore(x, 5)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)
    bytes_ = np.asarray(Image.open(tmp_path / "out.png")).transpose(2, 0, 1)
    assert np.abs(bytes_ - wanted[0].clip(0, 1) * 255).max() <= 0.501


def test_sixteen_bits_stay(made: tuple[Path, Path], tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (20, 30, 3), np.uint16)
    (tmp_path / "in.png").write_bytes(imagecodecs.png_encode(deep))
    x = np.ascontiguousarray(deep.transpose(2, 0, 1)[None], np.float32) / np.float32(65535)
    np.save(tmp_path / "in.npy", x)
    wanted = Library(made[0]).restore(x)[0].clip(0, 1) * 65535
    for name in ("in.png", "in.npy"):
        report(made[1], tmp_path, "--runs", "0", "--picture", name, "out.png")
        found = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
        assert np.abs(found.transpose(2, 0, 1) - wanted).max() <= 0.51


def test_transparency_is_left_out_with_a_word(made: tuple[Path, Path], tmp_path: Path) -> None:
    Image.new("RGBA", (24, 16)).save(tmp_path / "in.png")
    done = start(made[1], tmp_path, "--runs", "0", "--picture", "in.png", "out.png")
    assert done.returncode == 0
    assert "in.png: its transparency is left out" in done.stderr
    Image.new("RGB", (24, 16)).save(tmp_path / "in.png")
    done = start(made[1], tmp_path, "--runs", "0", "--picture", "in.png", "out.png")
    assert "transparency" not in done.stderr


def test_gray_for_a_network_of_colour(made: tuple[Path, Path], tmp_path: Path) -> None:
    gray = np.arange(16 * 24, dtype=np.uint8).reshape(16, 24)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(np.stack([gray] * 3, -1)).save(tmp_path / "colour.png")
    Image.fromarray(gray).save(tmp_path / "photo.jpg", quality=100)
    for name in ("gray.png", "colour.png", "photo.jpg"):
        words = ["--runs", "0", "--picture", name, f"{Path(name).stem}-out.png"]
        report(made[1], tmp_path, *words)
    photo, exact = (
        np.asarray(Image.open(tmp_path / f"{each}-out.png")) for each in ("photo", "gray")
    )
    assert np.abs(photo.astype(int) - exact).max() <= 8
    assert (tmp_path / "gray-out.png").read_bytes() == (tmp_path / "colour-out.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--runs"], 2, "--runs takes a number from 0, not nothing"),
        (["--runs", "-1"], 2, "not -1"),
        (["--speed"], 2, "--speed: unknown.*usage: "),
        (["--picture", "in.png"], 2, "--picture: unknown, or its value is missing"),
        (["--threads", "65"], 1, "65 threads asked for, 1 to 64 are possible"),
        (["--runs", "0", "--picture", "in.png", "out.png"], 1, "in.png: cannot be read"),
        (["--runs", "0", "--picture", "in.gif", "out.png"], 1, "only .png, .jpg, .jpeg and .npy"),
        (["--runs", "0", "--picture", "cut.png", "out.png"], 1, "cut.png: the PNG is cut short"),
        (["--runs", "0", "--picture", "ok.png", "no/out.png"], 1, "no/out.png: cannot be written"),
        (["--runs", "0", "--overlap", "9", "--picture", "ok.png", "o.png"], 1, "cannot overlap"),
    ],
)
def test_what_is_wrong_is_said(
    made: tuple[Path, Path], words: list[str], code: int, message: str, tmp_path: Path
) -> None:
    Image.new("RGB", (30, 30)).save(tmp_path / "ok.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "ok.png").read_bytes()[:50])
    done = start(made[1], tmp_path, *words)
    assert done.returncode == code
    assert message.partition(".*")[0] in done.stderr
    assert message.rpartition(".*")[2] in done.stderr


def test_a_build_that_computes_something_else(tmp_path: Path) -> None:
    _, program = build(tmp_path, "host", wrong=0.01)
    done = start(program, tmp_path)
    assert done.returncode == 3
    wanted = r"small: 0\.0(0999\d*|1(000\d*)?) off what torch computes, 0\.0001 is allowed"
    assert re.search(wanted, done.stderr)  # how the last digits round is the machine's
    assert done.stdout == ""


def test_for_arm_under_emulation(tmp_path: Path) -> None:
    qemu = shutil.which("qemu-aarch64")
    if not qemu:
        pytest.skip("qemu-aarch64 (Debian: qemu-user) is missing")
    _, program = build(tmp_path, "snapdragon8elite")
    words = [qemu, "-cpu", "max", str(program), "--runs", "1", "--warmup", "0"]
    done = subprocess.run(words, capture_output=True, text=True, env={}, check=True)
    assert json.loads(done.stdout)["max_error"] <= 1e-4
