"""The recipes of docs/guide/extending.md: sections of a page, and the files that each one shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docs.passages import ROOT

PAGE = ROOT / "docs/guide/extending.md"
_BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """A section of the page.

    Attributes:
        name: Its heading.
        files: Path -> content, all that it shows with a title.
    """

    name: str
    files: Mapping[str, str]

    def entry_points(self) -> dict[str, dict[str, str]]:
        """Return group -> name -> `module:attribute` of its `pyproject.toml`."""
        project = tomllib.loads(self.files.get("pyproject.toml", "")).get("project", {})
        found: dict[str, dict[str, str]] = project.get("entry-points", {})
        return found

    def write(self, folder: Path) -> None:
        """Write its Python, and what pip would write for an installed package."""
        for name, content in self.files.items():
            if not name.endswith(".py"):
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        metadata = folder / "mypackage-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n")
        lines = []
        for group, entries in self.entry_points().items():
            lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines))


def recipes(page: Path = PAGE) -> Iterator[Recipe]:
    """Yield the sections of the page that show files."""
    for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
        files = dict(_BLOCK.findall(section))
        if files:
            yield Recipe(section.partition("\n")[0], files)
