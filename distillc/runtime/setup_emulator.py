"""Set up what runs aarch64 code here: `python -m distillc.runtime.setup_emulator`.

qemu and the aarch64 C libraries come from Debian's packages (with root or sudo), TVM's aarch64
runtime from the wheels of the installed version. Nothing is downloaded later, at run time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version

from distillc.runtime.devices import (
    AARCH64_TRIPLE,
    aarch64_runtime,
    missing_parts,
)
from distillc.runtime.runner import build_runner

PACKAGES = ("qemu-user", "libc6-arm64-cross", "libstdc++6-arm64-cross")
WHEELS = ("apache-tvm", "apache-tvm-ffi")


def main() -> int:
    """Install what is missing; say in one line what could not be."""
    missing = missing_parts()
    if any("Debian" in part for part in missing):
        _install_packages()
    if any("TVM" in part for part in missing):
        _install_runtime()
    if missing := missing_parts():
        print(
            f"emulation is left out, missing: {'; '.join(missing)}. "
            f"Install it with: sudo apt-get install {' '.join(PACKAGES)}; then run this again."
        )
        return 0
    build_runner(AARCH64_TRIPLE, aarch64_runtime())
    print("emulation is ready")
    return 0


def _install_packages() -> None:
    """Install the Debian packages where root, or sudo without a password, allows it."""
    if not shutil.which("apt-get"):
        return
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and not shutil.which("sudo"):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", *PACKAGES]):
        subprocess.run([*prefix, "apt-get", "-qq", *words], env=environment)


def _install_runtime() -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    command += ["--target", str(aarch64_runtime()), "--only-binary=:all:"]
    command += ["--platform", "manylinux_2_28_aarch64"]
    subprocess.run([*command, *(f"{name}=={version(name)}" for name in WHEELS)])


if __name__ == "__main__":
    sys.exit(main())
