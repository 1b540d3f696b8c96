"""Objects to a shared library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distillc.errors import LoweringError
from distillc.targets.base import Target
from distillc.zig import HINT, run_zig


def linker(target: Target) -> Callable[..., None]:
    """Return an `fcompile` for TVM's `export_library` that links for a target."""

    def link(output: str, objects: Sequence[str], **_: Any) -> None:
        system = ["-target", target.link] if target.link else []
        if reason := run_zig("cc", "-shared", "-fPIC", "-o", output, *system, *objects):
            raise LoweringError(
                f"linking for {target.name} failed: {reason}", where=str(Path(output)), hint=HINT
            )

    # TVM asks for the triple to decide on the C files it adds beside the objects.
    link.get_target_triple = lambda: target.triple  # type: ignore[attr-defined]
    link.object_format = "o"  # type: ignore[attr-defined]
    return link
