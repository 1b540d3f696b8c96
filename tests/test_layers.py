"""Imports point one way: each folder knows only what stands below it.

docs/internals/architecture.md has the layers. Imports inside functions and those that only types
need count like any other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    "lazy",
    "printable",
    "errors",
    "registry",
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
    "executor",
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
    "options",
    "preflight",
    "standard_passes",
    "final_figures",
    "delivery",
    "as_is",
    "conversion",
    "cli",
)
FILES = sorted(
    path
    for folder in ("distillc", "passes", "targets")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "distillc" / "__init__.py"
)
ALL = sorted(
    path
    for folder in ("distillc", "passes", "targets", "tests", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
WRITTEN = sorted(
    path
    for folder in ("distillc", "passes", "targets", "tests", "examples", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".c", ".h", ".kt", ".html", ".css", ".md", ".sh")
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


CODEGEN = (
    "knobs",
    "dumps",
    "kernels",
    "schedule",
    "operators",
    "rewrites",
    "lower",
    "stages",
    "build",
    "tuning",
)
"""From the ground, in the order in which a program flows."""


@pytest.mark.parametrize(
    "path",
    sorted(path for path in (ROOT / "distillc" / "codegen").rglob("*.py") if path.parent != ROOT),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_code_generation_points_down(path: Path) -> None:
    parts = path.relative_to(ROOT / "distillc" / "codegen").with_suffix("").parts
    if parts == ("__init__",):
        return
    modules = {module(each, ROOT): each for each in FILES}
    names = [each.split(".") for each in needed(path, module(path, ROOT), modules)]
    used = {each[2] for each in names if each[:2] == ["distillc", "codegen"] and len(each) > 2}
    above = {each for each in used if CODEGEN.index(each) > CODEGEN.index(parts[0])}
    assert not above, f"{path} imports what stands above it: {sorted(above)}"


def module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    if parts[0] in ("passes", "targets"):  # which pyproject.toml maps into the package
        parts = ("distillc", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed(path: Path, name: str, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that one needs, wherever in the file it says so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in modules else base
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant):
            # What runs in a process of its own is named "module:function".
            named = re.fullmatch(r"(distillc(?:\.\w+)+):\w+", str(node.value))
            yield from named.groups() if named else ()


def circle(files: Iterable[Path], root: Path) -> list[str]:
    """Return modules that need each other in turn, none where no modules do."""
    modules = {module(path, root): path for path in files}
    graph = {
        name: {each for each in needed(path, name, modules) if each in modules} - {name}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_project_has_no_circle() -> None:
    assert circle(ALL, ROOT) == []


@pytest.mark.parametrize(
    "back",
    [
        "from distillc.a import f",
        "def g():\n    from distillc import a",
        "if TYPE_CHECKING:\n    import distillc.a",
        "from .a import f",
        "CHILD = 'distillc.a:f'",
    ],
    ids=["plain", "late", "types", "relative", "child"],
)
def test_a_circle_is_found(back: str, tmp_path: Path) -> None:
    (tmp_path / "distillc").mkdir()
    first, second = tmp_path / "distillc" / "a.py", tmp_path / "distillc" / "b.py"
    first.write_text("from distillc.b import g")
    second.write_text("import distillc.c")
    assert circle([first, second], tmp_path) == []
    second.write_text(back)
    found = circle([first, second], tmp_path)
    assert set(found) == {"distillc.a", "distillc.b"}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
