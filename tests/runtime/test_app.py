"""What a bundle brings for apps: compiled against its header and library, here and for Arm."""

from __future__ import annotations

import os
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
from distillc.runtime.manifest import weights_of
from distillc.targets.base import get_target
from distillc.zig import run_zig

JAVA = """
package distillc;
import java.nio.ByteBuffer;
public class Model {
  native long create(int threads, String weights);
  native int scale(long handle);
  native void restore(long handle, ByteBuffer source, ByteBuffer sink, int width, int height);
  native void destroy(long handle);
  public static void main(String[] words) throws Exception {
    System.load(words[0]);
    Model model = new Model();
    long handle = model.create(2, words[2]);
    ByteBuffer source = ByteBuffer.allocateDirect(4 * 50 * 30);
    ByteBuffer sink = ByteBuffer.allocateDirect(4 * 50 * 30);
    for (int i = 0; i < 6000; i++) source.put((byte) (i % 251));
    model.restore(handle, source, sink, 50, 30);
    byte[] pixels = new byte[6000];
    sink.get(pixels);
    java.nio.file.Files.write(java.nio.file.Path.of(words[1]), pixels);
    try { model.restore(handle, source, sink, 51, 30); }
    catch (IllegalStateException error) { System.out.println(error.getMessage()); }
    model.destroy(handle);
    try { model.create(65, words[2]); }
    catch (IllegalStateException error) { System.out.println(error.getMessage()); }
  }
}
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return nn.Sequential(*layers).eval()


def build(folder: Path, target: str, beside: bool = False) -> tuple[Bundle, Path]:
    bundle = distillc.compile(
        network(), target=target, size=(20, 32), directory=folder, weights_beside=beside
    )
    program, link = folder / "restore", get_target(target).link
    words = [
        "-O2",
        "-Wall",
        "-Werror",
        f"-I{bundle.path}",
        bundle.path / "restore.c",
        bundle.library,
    ]
    system = ["-target", link] if link else []
    assert run_zig("cc", *words, *system, f"-Wl,-rpath,{bundle.path}", "-o", program) is None
    return bundle, program


def by_torch(pixels: np.ndarray) -> np.ndarray:
    """Bytes (H, W, 3) of a picture that is one tile, or smaller."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, [(0, 20 - height), (0, 32 - width), (0, 0)], mode="symmetric")
    with torch.no_grad():
        x = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
        y = network()(x)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    return y[:height, :width]


@pytest.mark.parametrize(("target", "beside"), [("host", False), ("snapdragon8elite", True)])
def test_the_example_in_c(target: str, beside: bool, tmp_path: Path) -> None:
    command = []
    if target != "host":
        if missing := missing_parts():
            pytest.skip(f"the emulator is not complete: {', '.join(missing)} missing")
        if qemu := shutil.which("qemu-aarch64"):
            command = [qemu, "-cpu", "max", "-L", str(AARCH64_SYSTEM)]
    folder = tmp_path / "bundle"
    folder.mkdir()
    bundle, program = build(folder, target, beside)
    weights = [str(weights_of(bundle.library))] if beside else []
    for size in ((20, 32), (9, 30)):
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in.ppm")
        words = [*command, str(program), str(tmp_path / "in.ppm"), str(tmp_path / "out.ppm")]
        words += weights
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert "2 threads: " in done.stdout
        found = np.asarray(Image.open(tmp_path / "out.ppm"))
        assert np.abs(found - by_torch(pixels)).max() <= 0.51


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    _, program = build(folder, "host")
    (tmp_path / "in.ppm").write_text("P6 4 4 255 ")
    words = [str(program), str(tmp_path / "in.ppm"), str(tmp_path / "out.ppm")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no PPM file" in done.stderr


def test_cmake_and_java(tmp_path: Path) -> None:
    for tool in ("cmake", "make", "cc", "javac", "java"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is missing")
    folder = tmp_path / "bundle"
    folder.mkdir()
    bundle, _ = build(folder, "host", beside=True)
    made = tmp_path / "made"
    home = Path(shutil.which("javac") or "").resolve().parents[1]
    environment = {**os.environ, "JAVA_HOME": str(home)}
    for words in (["-S", folder, "-B", made], ["--build", made]):
        command = ["cmake", *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    assert (made / "restore").exists()
    (tmp_path / "Model.java").write_text(JAVA)
    command = ["javac", "-d", str(tmp_path), str(tmp_path / "Model.java")]
    subprocess.run(command, check=True, capture_output=True)
    library, sink = made / "libdistillc_jni.so", tmp_path / "out"
    command = ["java", "-cp", str(tmp_path), "distillc.Model", str(library), str(sink)]
    command.append(str(weights_of(bundle.library)))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines == [
        "the buffers are not direct, or too small",
        "65 threads asked for, 1 to 64 are possible",
    ]
    given = np.arange(6000) % 251
    found = np.frombuffer(sink.read_bytes(), np.uint8).reshape(30, 50, 4)
    pixels = given.astype(np.uint8).reshape(30, 50, 4)
    x = np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    wanted = bundle.run(x)[0].transpose(1, 2, 0).clip(0, 1) * 255
    assert np.abs(found[..., :3] - wanted).max() <= 0.51
    np.testing.assert_array_equal(found[..., 3], pixels[..., 3])
