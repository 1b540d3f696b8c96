"""ONNX Runtime for aarch64 under qemu: an arm64 Python in a folder of its own, and its counts.

Debian's arm64 packages are unpacked, not installed, and apt's lists are kept in the same folder:
the system is left as it is. The wheels are PyPI's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from distillc.errors import DeviceError
from distillc.runtime.instruction_count import Instruction, difference, execute

PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libstdc++6",
    "libgcc-s1",
    "zlib1g",
    "libexpat1",
    "libffi8",
)
ONNXRUNTIME = "1.27.0"
"""1.32.0 crashes under qemu when it is imported: it reads the emulating machine's caches."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
CPU = "max,sve=off,sme=off"
"""What the phones have: no SVE, no SME."""

PROGRAM = """
import sys
import numpy as np
import onnxruntime as ort
model, shape, runs = sys.argv[1], [int(each) for each in sys.argv[2].split(",")], int(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
feed = {session.get_inputs()[0].name: np.random.default_rng(0).random(shape, dtype=np.float32)}
for _ in range(runs):
    (output,) = session.run(None, feed)
assert np.isfinite(output).all()
"""


def prepare(folder: Path) -> None:
    """Fill a folder with an arm64 Python, numpy and ONNX Runtime, unless it is filled already.

    Raises:
        CalledProcessError: A download fails, or this is not Debian 12, whose Python is 3.11.
    """
    done = folder / "ready"
    if done.exists():
        return
    for name in ("lists/partial", "debs", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    configuration = folder / "apt.conf"
    configuration.write_text(
        f'APT::Architectures {{"amd64"; "arm64";}};\nDir::State::lists "{folder}/lists";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(configuration)}

    def call(*words: object) -> None:
        command = [str(word) for word in words]
        subprocess.run(command, check=True, env=environment, cwd=folder / "debs")

    call("apt-get", "-qq", "update")
    call("apt-get", "-qq", "download", *(f"{name}:arm64" for name in PACKAGES))
    for package in (folder / "debs").glob("*.deb"):
        call("dpkg", "-x", package, folder / "root")
    wheels = [f"onnxruntime=={ONNXRUNTIME}", f"numpy=={version('numpy')}"]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    pip += ["--python-version", "3.11", "--only-binary=:all:", *platforms]
    call(*pip, "--target", folder / "site", *wheels)
    done.touch()


def count_onnxruntime(folder: Path, model: Path, shape: Sequence[int]) -> tuple[Instruction, ...]:
    """Return what one inference executes, the whole process, on one thread without spinning.

    Args:
        folder: What `prepare` filled.
        model: ONNX file.
        shape: Shape of its float32 input.

    Raises:
        DeviceError: It does not run.
    """
    root = folder / "root"
    command = ["qemu-aarch64", "-cpu", CPU, "-L", str(root)]
    for name, value in {
        "PYTHONHOME": root / "usr",
        "PYTHONPATH": folder / "site",
        "PYTHONHASHSEED": 0,
        "OMP_NUM_THREADS": 1,
        "OPENBLAS_NUM_THREADS": 1,
    }.items():
        command += ["-E", f"{name}={value}"]
    command += [str(root / "usr/bin/python3.11"), "-c", PROGRAM]

    def run(inferences: int) -> tuple[Instruction, ...]:
        words = [str(model.resolve()), ",".join(map(str, shape)), str(inferences)]
        return execute([*command, *words], _call)

    return difference(run(2), run(1))


def _call(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"ONNX Runtime failed under qemu: {done.stderr.strip()[-500:]}")
