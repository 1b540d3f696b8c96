"""What a network's library and program withstand: sanitizers, valgrind, many runs, damaged input.

    python -m tests.benchmarks.robustness --runs 10000 --inputs 1000000

Builds the small Restormer of `examples/checkpoints` for this machine: its kernels as they are, the
code around them with ThreadSanitizer and for valgrind; once with its weights inside and once with
them in a file, stored as float16. Feeds the decoders of pictures by libFuzzer
(Debian: clang-19, libclang-rt-19-dev), the reader of manifests by random changes. Runs the aarch64
program of the same network on photographs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import ExifTags, Image

import distillc
from distillc.codegen.build.emit import emit_weights
from distillc.codegen.build.library import build_parts
from distillc.errors import DistillcError
from distillc.frontend.trace import export_program
from distillc.runtime.bundle import MANIFEST, Bundle
from distillc.runtime.native import FLAGS, FOLDER, MODEL, PICTURES
from distillc.targets.base import Target, get_target
from distillc.zig import run_zig
from tests.benchmarks.report import markdown

HERE = Path(__file__).parent
TEACHER = HERE.parents[1] / "examples" / "checkpoints" / "restormer_tiny_denoise_sigma25.pth"
PHOTOGRAPHS = {"astronaut": (128, 128), "coffee": (120, 96), "chelsea": (77, 128)}
COLUMNS = {"check": "check", "result": "result"}


@dataclass(frozen=True)
class Parts:
    """What `stress.c` is linked with, and the file of weights that it is given, if any."""

    files: tuple[Path, ...]
    weights: Path | None


def build(folder: Path, target: Target, beside: bool, size: tuple[int, int] = (64, 64)) -> Parts:
    """Compile the network for `stress.c`, its weights inside, or as float16 in a file."""
    folder.mkdir()
    net = distillc.load(TEACHER).at(size)
    precision = "fp16-weights" if beside else "fp32"
    program = export_program(net.module, net.input_shape)
    parts = build_parts(program, target, folder, precision=precision)
    if beside:
        return Parts(parts.files, parts.weights)
    return Parts((*parts.files, emit_weights(folder)), None)


def stress(
    parts: Parts, path: Path, threads: int, runs: int, before: Sequence[str] = (), *options: str
) -> subprocess.CompletedProcess[str]:
    """Link `stress.c` with the network and run it, by the command `before` if there is one."""
    sources = [HERE / "stress.c", *(FOLDER / f"{name}.c" for name in MODEL)]
    reason = run_zig("cc", *FLAGS, "-g", *options, "-o", path, *sources, *parts.files)
    if reason:
        raise RuntimeError(reason)
    return run(*before, path, threads, runs, *filter(None, [parts.weights]))


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)


def many_runs(parts: Parts, folder: Path, runs: int) -> str:
    """Memory that grows, numbers that change."""
    found = json.loads(stress(parts, folder / "stress", 8, runs).stdout)
    grown = found["after_kib"] - found["before_kib"]
    right = "all outputs equal" if not found["wrong"] else "OUTPUTS DIFFER"
    return f"{runs} runs in 8 threads on 2 models: {right}, memory grew by {grown} KiB"


def thread_sanitizer(parts: Parts, folder: Path, runs: int) -> str:
    """Races of the code around the kernels, which are not instrumented."""
    done = stress(parts, folder / "tsan", 8, runs, (), "-fsanitize=thread", "-fPIE")
    reports = done.stderr.count("WARNING: ThreadSanitizer")
    return f"{runs} runs in 8 threads on 2 models: {reports} reports, exit {done.returncode}"


def valgrind(folder: Path, beside: bool) -> str:
    """Memory errors and leaks; baseline kernels, for valgrind knows no AVX-512."""
    if not shutil.which("valgrind"):
        return "skipped: valgrind is missing"
    old = replace(get_target("host"), cpu="x86-64-v3", vector_bits=256, registers=16, half=False)
    parts = build(folder / "baseline", old, beside, (32, 32))
    words = ("valgrind", "--leak-check=full", "--error-exitcode=9")
    done = stress(parts, folder / "valgrind", 3, 4, words, "-gdwarf-4")
    lines = [line.partition("== ")[2] for line in done.stderr.splitlines()]
    said = [line for line in lines if "ERROR SUMMARY" in line or "no leaks" in line]
    return f"4 runs in 3 threads: {'; '.join(said) or done.stderr[-300:]}, exit {done.returncode}"


def fuzz_pictures(folder: Path, inputs: int) -> str:
    """Crashes, leaks and overruns of the decoders."""
    clang = shutil.which("clang-19") or shutil.which("clang")
    if not clang:
        return "skipped: clang with libFuzzer is missing"
    program, corpus = folder / "fuzz", folder / "corpus"
    sources = [HERE / "fuzz.c", *(FOLDER / f"{name}.c" for name in PICTURES)]
    flags = ["-g", "-O1", "-std=gnu11", f"-I{FOLDER}", "-fsanitize=fuzzer,address,undefined"]
    built = run(clang, *flags, "-o", program, *sources)
    if built.returncode:
        return f"skipped: {built.stderr.strip().splitlines()[-1]}"
    corpus.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    for mode in ("L", "LA", "RGB", "RGBA", "P"):
        path = folder / f"{mode}.png"
        Image.fromarray(pixels, "RGBA").convert("RGB").convert(mode).save(path)
        (corpus / mode).write_bytes(b"\1" + path.read_bytes())
    notes = Image.Exif()
    notes[ExifTags.Base.Orientation] = 6
    for sampling in (0, 2):
        path = folder / f"{sampling}.jpg"
        options = {"subsampling": sampling, "restart_marker_blocks": sampling, "exif": notes}
        Image.fromarray(pixels, "RGBA").convert("RGB").save(path, **options)
        (corpus / path.name).write_bytes(b"\2" + path.read_bytes())
    np.save(folder / "x.npy", np.zeros((3, 4, 5), np.float32))
    (corpus / "npy").write_bytes(b"\0" + (folder / "x.npy").read_bytes())
    words = [f"-runs={inputs}", "-max_len=4096", "-seed=1", "-rss_limit_mb=4096"]
    done = run(program, *words, corpus, cwd=folder)
    last = [line for line in done.stderr.splitlines() if line.startswith("Done")]
    return last[0] if last else f"FAILED: {done.stderr[-400:]}"


def fuzz_manifests(folder: Path, inputs: int) -> str:
    """Errors of another family when a bundle with a changed manifest is opened."""
    bundle = folder / "bundle"
    bundle.mkdir()
    module = torch.nn.Conv2d(3, 3, 3, padding=1).eval()  # small: every opening hashes its files
    net = distillc.trace(module, torch.zeros(1, 3, 16, 16))
    distillc.compile(net, target="host", size=(16, 16), directory=bundle)
    whole = (bundle / MANIFEST).read_bytes()
    source, refused, others = random.Random(0), 0, []
    for _ in range(inputs):
        data = bytearray(whole)
        for _ in range(source.randint(1, 6)):
            place, kind = source.randrange(len(data)), source.random()
            if kind < 0.5:
                data[place] = source.randrange(256)
            elif kind < 0.75:
                del data[place : place + source.randint(1, 30)]
            else:
                data[place:place] = data[source.randrange(len(data)) :][: source.randint(1, 30)]
        (bundle / MANIFEST).write_bytes(data)
        try:
            Bundle.open(bundle)
        except DistillcError:
            refused += 1
        except Exception as error:
            others.append(f"{type(error).__name__}: {error}")
    opened = inputs - refused - len(others)
    first = f", first {others[0]}" if others else ""
    return f"{inputs} manifests: {refused} refused, {opened} opened, {len(others)} crashes{first}"


def photographs(folder: Path) -> str:
    """The aarch64 program alone under qemu, on photographs of several sizes, against torch."""
    if not shutil.which("qemu-aarch64"):
        return "skipped: qemu-aarch64 is missing"
    bundle, edge = folder / "arm", 128
    bundle.mkdir()
    net = distillc.load(TEACHER).at((edge, edge))
    made = distillc.compile(net, "snapdragon8elite", (edge, edge), directory=bundle)
    program = bundle / made.manifest["bench"]
    found = []
    for name, (height, width) in PHOTOGRAPHS.items():
        pixels = getattr(skimage.data, name)()[60 : 60 + height, 60 : 60 + width]
        x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        np.save(folder / "in.npy", x)
        words = ["--runs", 0, "--picture", "in.npy", "out.npy"]
        run("qemu-aarch64", "-cpu", "max", program, *words, cwd=folder, check=True)
        missing = [(0, edge - height), (0, edge - width)]
        padded = np.pad(x, [(0, 0), (0, 0), *missing], mode="symmetric")
        with torch.no_grad():
            wanted = net.module(torch.from_numpy(padded)).numpy()[:, :, :height, :width]
        error = np.abs(np.load(folder / "out.npy") - wanted).max()
        found.append(f"{height}x{width} {error:.1e}")
    return f"largest differences from torch: {', '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--inputs", type=int, default=1000000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="robustness-") as name:
        folder = Path(name)
        checks: dict[str, Callable[[], str]] = {}
        for beside, storage in ((False, "weights inside"), (True, "weights in a file, float16")):
            own = folder / storage
            parts = build(own, get_target("host"), beside)
            checks |= {
                f"many runs, {storage}": partial(many_runs, parts, own, given.runs),
                f"ThreadSanitizer, {storage}": partial(thread_sanitizer, parts, own, 200),
                f"valgrind, {storage}": partial(valgrind, own, beside),
            }
        checks |= {
            "pictures, libFuzzer": partial(fuzz_pictures, folder, given.inputs),
            "photographs, aarch64": partial(photographs, folder),
            "manifests": partial(fuzz_manifests, folder, given.inputs),
        }
        rows = []
        for check, work in checks.items():
            print(check, file=sys.stderr, flush=True)
            rows.append({"check": check, "result": work()})
        print(markdown(COLUMNS, rows))


if __name__ == "__main__":
    main()
