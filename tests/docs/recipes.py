"""The recipes of docs/guide/extending*.md: sections of pages, and the files that each one shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree

from tests.docs.passages import ROOT
from tests.packages import write_package

PAGES = sorted((ROOT / "docs/guide").glob("extending*.md"))
_BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """A section of a page.

    Attributes:
        name: Its heading.
        files: Path -> content, all that it shows with a title.
        changes: Path -> lines that it adds to a file of distillc, each after the line above it.
    """

    name: str
    files: Mapping[str, str]
    changes: Mapping[str, str] = field(default_factory=dict)

    def entry_points(self) -> dict[str, dict[str, str]]:
        """Return group -> name -> `module:attribute` of its `pyproject.toml`."""
        project = tomllib.loads(self.files.get("pyproject.toml", "")).get("project", {})
        found: dict[str, dict[str, str]] = project.get("entry-points", {})
        return found

    @property
    def changes_distillc(self) -> bool:
        """Whether a file of it is one of distillc's own."""
        return any(name.startswith("distillc/") for name in self.files)

    def write(self, folder: Path) -> None:
        """Write its Python, and what pip would write for an installed package."""
        modules = {name: text for name, text in self.files.items() if name.endswith(".py")}
        if self.changes_distillc:
            for source, place in (("distillc", ""), ("passes", "passes"), ("targets", "targets")):
                copytree(ROOT / source, folder / "distillc" / place, dirs_exist_ok=True)
        write_package(folder, "mypackage", modules, self.entry_points())
        for name, change in self.changes.items():
            path = folder / name
            path.write_text(changed(path.read_text(), change))


def recipes() -> Iterator[Recipe]:
    """Yield the sections of the pages that show files."""
    text = "\n".join(page.read_text() for page in PAGES)
    for section in re.split(r"^#+ (?=[A-Z])", text, flags=re.MULTILINE):
        shown = _BLOCK.findall(section)
        files = {name: text for kind, name, text in shown if kind != "diff"}
        changes = {name: text for kind, name, text in shown if kind == "diff"}
        if files:
            yield Recipe(section.partition("\n")[0], files, changes)


def changed(text: str, change: str) -> str:
    """Return a text with the lines of a diff that start with `+`, each after the one above it."""
    lines, place = text.splitlines(), 0
    for line in change.splitlines():
        if line.startswith("+"):
            place += 1
            lines.insert(place, line[1:])
        else:
            place = lines.index(line[1:])
    return "\n".join(lines) + "\n"
