"""Objects to a shared library. Zig links for every target: no NDK, no system compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distillc.errors import LoweringError
from distillc.targets.base import Target


def linker(target: Target) -> Callable[..., None]:
    """Return an `fcompile` for TVM's `export_library` that links for a target."""

    def link(output: str, objects: Sequence[str], **_: Any) -> None:
        command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-o", output]
        if target.link:
            command += ["-target", target.link]
        done = subprocess.run([*command, *objects], capture_output=True, text=True)
        if done.returncode:
            raise LoweringError(
                f"linking for {target.name} failed: {done.stderr.strip()[-500:]}",
                where=str(Path(output)),
                hint="check that `python -m ziglang version` works and the disk has space",
            )

    # TVM asks for the triple to decide on the C files it adds beside the objects.
    link.get_target_triple = lambda: target.triple  # type: ignore[attr-defined]
    link.object_format = "o"  # type: ignore[attr-defined]
    return link
