"""Bundles with a damaged file, pictures for a sound one, and odd options and names.

A bundle's library is code that its user trusts: it stays as it was made.
"""

from __future__ import annotations

import functools
import io
import json
import shutil
import tempfile
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from tests.fuzz.hostile.checkpoints import NET, saved, state
from tests.fuzz.hostile.damage import NAMES, altered, damaged, dumped
from tests.fuzz.hostile.small import Small


@functools.cache
def sound() -> Path:
    """Return a bundle of the small network for this machine."""
    import distillc
    from distillc.runtime.verify import verify_bundle

    folder = Path(tempfile.mkdtemp(prefix="fuzz-bundle-"))
    bundle = distillc.compile(Small().eval(), target="host", size=(16, 16))
    verify_bundle(bundle)
    return bundle.save(folder / "sound.distillc").path


def bundle_files(rng: Random, folder: Path) -> list[str]:
    """A bundle whose manifest or data is damaged."""
    bundle = folder / "b.distillc"
    shutil.copytree(sound(), bundle)
    manifest = bundle / "manifest.json"
    if rng.random() < 0.7:
        facts = json.loads(manifest.read_text())
        for _ in range(rng.choice((1, 1, 3))):
            facts = altered(facts, rng)
        manifest.write_bytes(dumped(facts))
    else:
        name = rng.choice(("manifest.json", "reference.safetensors", "hybrid.pt2", "model.onnx"))
        path = bundle / name
        path.write_bytes(damaged(path.read_bytes(), rng))
    if rng.random() < 0.6:
        (folder / "x.png").write_bytes(picture("PNG"))
        return ["run", str(bundle), str(folder / "x.png"), str(folder / "y.png")]
    return ["verify", str(bundle), "--images", "1"]


@functools.cache
def picture(kind: str, mode: str = "RGB") -> bytes:
    """Return a picture of 16 x 20 pixels."""
    pixels = (np.arange(16 * 20 * 3) % 251).astype(np.uint8).reshape(16, 20, 3)
    image, buffer = Image.fromarray(pixels).convert(mode), io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def pictures(rng: Random, folder: Path) -> list[str]:
    """A damaged picture, or one of another kind than its name says."""
    kind = rng.choice(("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM"))
    path = folder / f"x.{rng.choice((kind.lower(), 'png', 'jpg', 'tif', 'npy'))}"
    path.write_bytes(damaged(picture(kind), rng))
    out = folder / rng.choice(("y.png", "y.jpg", "y.tif", "y.psd", "no/y.png", "y"))
    return ["run", str(sound()), str(path), str(out)]


VALUES = ("nan", "inf", "-1", "0", "1e400", "²", "", "x", "8x8x8", "99999999999", "--", "\x1b[31m")
OPTIONS = (
    "--size", "--task", "--budget", "--target", "--precision", "--train-on", "--seed", "--max-drop",
    "--min-speedup", "--max-latency-ms", "--keep", "--replace", "--family", "--objective",
    "--measure-on", "--data", "--arch", "--arch-args", "--work-dir", "--print-after", "--tune",
)  # fmt: skip


def options(rng: Random, folder: Path) -> list[str]:
    """A sound checkpoint with an odd name, and options that make no sense."""
    name = rng.choice([each for each in NAMES if each and "\0" not in each and len(each) < 200])
    path = folder / (name.replace("/", "_") + rng.choice((".pth", ".PTH", "")))
    if not path.exists():  # "." is the folder
        path.write_bytes(saved(state()))
    words = ["convert", str(path), "--arch", NET, "--size", "16", "--budget", "smoke"]
    words += ["--stop-after", "trace"]
    for option in rng.sample(OPTIONS, rng.choice((0, 1, 2))):
        words += [option, rng.choice(VALUES)]
    return words
