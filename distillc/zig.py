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

HOME = Path(ziglang.__file__).resolve().parent
"""Where it runs: its cache has a C library for each folder that it was run in."""


def run_zig(*words: object) -> str | None:
    """Run `zig` with some arguments; return its errors, None where it succeeded.

    Args:
        words: The arguments; paths among them are absolute.

    Raises:
        StorageError: There is no folder for its temporary files, or no space.
    """
    environment = {**os.environ, "TMPDIR": str(temporary_folder())}
    command = with_us([HOME / "zig", *words])
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HOME)
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
