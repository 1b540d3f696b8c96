"""Zig, a dependency: it compiles and links for every target, with no NDK and no system compiler."""

from __future__ import annotations

import subprocess
import sys

HINT = "check that `python -m ziglang version` works and the disk has space"


def run_zig(*words: object) -> str | None:
    """Run `zig` with some arguments; return its errors, None where it succeeded."""
    command = [sys.executable, "-m", "ziglang", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.returncode:
        return None
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    return "\n".join(errors)[:500] or done.stderr.strip()[-500:]
