"""Set up what runs aarch64 code here: `python -m distillc.runtime.setup_emulator`.

qemu and the aarch64 C library come from Debian's packages (with root or sudo). Nothing is
downloaded later, at run time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from distillc.runtime.devices.local import AARCH64_TRIPLE, missing_parts
from distillc.runtime.runner import build_runner

PACKAGES = ("qemu-user", "libc6-arm64-cross")


def main() -> int:
    """Install what is missing; say in one line what could not be."""
    if missing_parts():
        _install_packages()
    if missing := missing_parts():
        print(
            f"emulation is left out, missing: {'; '.join(missing)}. "
            f"Install it with: sudo apt-get install {' '.join(PACKAGES)}; then run this again."
        )
        return 0
    build_runner(AARCH64_TRIPLE)
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


if __name__ == "__main__":
    sys.exit(main())
