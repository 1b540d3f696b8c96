"""One name, one thing: no two files define a class or a public function of one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.test_layers import FILES, ROOT

SHARED = {
    "Array": "a short form of numpy's arrays, wherever it stands",
    "convert": "a command has the name of the function that it calls",
    "tune": "a command has the name of the function that it calls",
    "main": "what a program begins with",
    "forward": "the scan, written in C and in torch",
    "backward": "the scan's gradient, written in C and in torch",
}
"""Name -> why several files may define it."""


def defined(path: Path) -> Iterator[str]:
    """Yield the public classes, types and functions of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            # Names in capitals are constants, which no other file means by that name.
            names = [each.id for each in node.targets if isinstance(each, ast.Name)]
            yield from (name for name in names if name != name.upper() and name[0].isupper())


def repeated(files: Iterable[Path]) -> dict[str, list[str]]:
    """Return names that several files define, with the files."""
    homes: dict[str, list[str]] = defaultdict(list)
    for path in files:
        for name in defined(path):
            if not name.startswith("_"):
                homes[name].append(path.name)
    return {name: found for name, found in homes.items() if len(found) > 1}


def test_no_name_has_two_meanings() -> None:
    found = repeated(FILES)
    assert found.keys() == SHARED.keys(), {
        name: found.get(name) for name in found.keys() ^ SHARED.keys()
    }


@pytest.mark.parametrize(
    "text",
    ["class Name:\n    pass", "def Name(): ...", "Name = tuple[int, int]"],
    ids=["class", "function", "type"],
)
def test_a_second_meaning_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class Name:\n    pass\n\n_Own = tuple[int, int]\nSIZE = x[0]\n")
    (tmp_path / "b.py").write_text("_Own = list[int]\nSIZE = x[1]\n")
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    assert repeated(files) == {}
    files[1].write_text(text)
    assert repeated(files) == {"Name": ["a.py", "b.py"]}


def test_files_are_looked_at() -> None:
    assert ROOT / "distillc" / "pipeline.py" in FILES
