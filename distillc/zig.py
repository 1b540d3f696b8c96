"""Zig, a dependency: it compiles and links for every target, with no NDK and no system compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ziglang

from distillc.checks import temporary_folder
from distillc.children import with_us

HINT = "check that `python -m ziglang version` works and the disk has space"


def run_zig(*words: object) -> str | None:
    """Run `zig` with some arguments; return its errors, None where it succeeded.

    Raises:
        StorageError: There is no folder for its temporary files.
    """
    program = Path(ziglang.__file__).parent / "zig"
    environment = {**os.environ, "TMPDIR": str(temporary_folder())}
    command = with_us([program, *words])
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if not done.returncode:
        return None
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    return "\n".join(errors)[:500] or done.stderr.strip()[-500:]
