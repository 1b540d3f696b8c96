"""What users and developers read, cut into passages: pages, docstrings, hints and help."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
_FOLDERS = ("distillc", "passes", "targets", "examples", "tests/benchmarks", "tests/fuzz")
_SAID = {"hint", "help", "epilog", "short_help"}  # keyword arguments that users read
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?: {4}.*\n?|\n(?= {4}))+")


@dataclass(frozen=True)
class Passage:
    """A text and where it stands: `code` is a block of commands or Python, else it is prose."""

    place: str
    text: str
    code: bool = False


def passages(root: Path = ROOT) -> Iterator[Passage]:
    """Yield every passage of the project."""
    pages = [root / name for name in _PAGES if (root / name).exists()]
    for page in (*pages, *sorted((root / "docs").rglob("*.md"))):
        yield from of_markdown(page.read_text(), str(page.relative_to(root)))
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            yield from of_python(path.read_text(), str(path.relative_to(root)))


def of_markdown(text: str, place: str) -> Iterator[Passage]:
    """Yield the code blocks of a page, and its prose as one passage."""
    for pattern in (_FENCE, _INDENTED):
        for block in pattern.findall(text):
            inside = textwrap.dedent(block).strip("\n")
            yield Passage(place, re.sub(r"^```.*$", "", inside, flags=re.MULTILINE), code=True)
        text = pattern.sub("\n", text)
    yield Passage(place, text)


def of_python(source: str, place: str) -> Iterator[Passage]:
    """Yield the docstrings of a file, of its attributes too, its hints and its help."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and _is_text(node.value):
            text = ast.literal_eval(node.value)
            yield from of_markdown(
                textwrap.dedent(" " * 4 + text) if "\n" not in text else _dedented(text),
                f"{place}:{node.lineno}",
            )
        elif isinstance(node, ast.keyword) and node.arg in _SAID:
            yield Passage(f"{place}:{node.value.lineno}", _constants(node.value))
        elif isinstance(node, ast.Assign) and "hint" in ast.unparse(node.targets[0]):
            yield Passage(f"{place}:{node.lineno}", _constants(node.value))


def is_said(node: ast.AST) -> bool:
    """Return whether a node of Python is a text for readers, and no code."""
    return (isinstance(node, ast.Expr) and _is_text(node.value)) or (
        isinstance(node, ast.keyword) and node.arg in _SAID
    )


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _dedented(text: str) -> str:
    first, rest = text.split("\n", 1)
    return f"{first}\n{textwrap.dedent(rest)}"


def _constants(node: ast.AST) -> str:
    """Return the fixed parts of a text, of an f-string too, a placeholder for the others."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_constants(each) if _is_text(each) else "{}" for each in node.values)
    if _is_text(node):
        return str(ast.literal_eval(node))
    return "\n".join(_constants(each) for each in ast.iter_child_nodes(node))
