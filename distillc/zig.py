"""Zig, a dependency: it compiles and links for every target, with no NDK and no system compiler."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import ziglang

from distillc.checks import temporary_folder
from distillc.children import with_us
from distillc.errors import StorageError

HINT = "check that `python -m ziglang version` works and the disk has space"


def run_zig(*words: object) -> str | None:
    """Run `zig` with some arguments; return its errors, None where it succeeded.

    Raises:
        StorageError: There is no folder for its temporary files, or no space.
    """
    program = Path(ziglang.__file__).parent / "zig"
    environment = {**os.environ, "TMPDIR": str(temporary_folder())}
    command = with_us([program, *words])
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if not done.returncode:
        return None
    if "NoSpaceLeft" in done.stderr:
        # Not an error of what is compiled: nobody should go on without it.
        raise StorageError(
            "the disk is full",
            where=f"zig's cache, {environment['TMPDIR']}, or where its output goes",
            hint="free some space and run the same command again",
        )
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    return "\n".join(errors)[:500] or done.stderr.strip()[-500:]
