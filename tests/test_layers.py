"""Imports point one way: each folder knows only what stands below it (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    "printable",
    "errors",
    "checks",
    "children",
    "sandbox_worker",
    "sandbox",
    "workdir",
    "sealed",
    "forms",
    "stages",
    "quiet",
    "zig",
    "network",
    "data",
    "frontend",
    "surrogates",
    "targets",
    "runtime",
    "codegen",
    "search",
    "pipeline",
    "passes",
    "report",
    "compilation",
    "bisection",
    "tuning",
    "budgets",
    "limits",
    "preflight",
    "onnx_conversion",
    "conversion",
    "cli",
)
FILES = sorted(
    path
    for folder in ("distillc", "passes", "targets")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "distillc" / "__init__.py"
)


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "distillc" else parts[0]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("distillc.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = LAYERS.index(layer(path))
    above = {name for name in imported(path) if LAYERS.index(name) > own}
    assert not above, f"{path} imports what stands above it: {sorted(above)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
