"""Packages that tests write and install by hand: a folder on the path with its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillc.data.figures import METRICS
from distillc.data.tasks import TASKS
from distillc.passes.registry import PASSES
from distillc.registry import Registry
from distillc.runtime.devices.base import DEVICES
from distillc.surrogates.family import FAMILIES
from distillc.targets.base import TARGETS

KINDS: list[Registry[Any]] = [PASSES, TARGETS, FAMILIES, DEVICES, TASKS, METRICS]
"""All registries."""


def write_package(
    site: Path, name: str, modules: Mapping[str, str], entry_points: Mapping[str, Mapping[str, str]]
) -> None:
    """Write what pip would install.

    Args:
        site: A folder on `sys.path`.
        name: Of the distribution; version 1.0.
        modules: File in `site` -> source.
        entry_points: Group -> name -> `module:attribute`.
    """
    for file, source in modules.items():
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
