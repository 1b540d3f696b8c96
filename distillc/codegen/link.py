"""Objects and sources to a shared library, by zig."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from distillc.errors import LoweringError
from distillc.runtime.native import FLAGS, FOLDER
from distillc.targets.base import Target
from distillc.workdir import write_whole
from distillc.zig import HINT, run_zig


def link_library(
    path: Path, target: Target, parts: Sequence[Path], native: Sequence[str], exports: str
) -> None:
    """Link a shared library that needs the C library alone.

    Args:
        path: The library.
        target: What it is for.
        parts: Objects and sources.
        native: Sources of `distillc/runtime/native` that it holds, say `("pool", "cores")`.
        exports: Pattern of the symbols that others see, say `"distillc_*"`.

    Raises:
        LoweringError: It does not compile or link.
        StorageError: `path` cannot be written.
    """
    sources = [*parts, *(FOLDER / f"{name}.c" for name in native)]
    # Symbols stay, for counts by kernel; with them lines of code do, but no folder of this machine.
    folders = {FOLDER: "distillc", parts[0].parent: "build", Path.cwd(): "."}
    paths = [f"-ffile-prefix-map={folder}={name}" for folder, name in folders.items()]
    system = ["-target", target.link] if target.link else []

    def link(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="distillc-link-") as folder:
            script = Path(folder) / "exports.map"
            script.write_text(f"{{ global: {exports}; local: *; }};\n")
            words = ["-shared", "-fPIC", *FLAGS, *paths, *system]
            words.append(f"-Wl,--version-script={script}")
            reason = run_zig("cc", *words, "-o", temporary, *sources)
        if reason:
            raise LoweringError(
                f"linking for {target.name} failed: {reason}", where=str(path), hint=HINT
            )

    write_whole(path, link)
