"""The recipes of the guide: sections of its pages, and the files that each one shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

from tests.docs.passages import ROOT
from tests.packages import write_package

PAGES = [ROOT / "docs/guide" / name for name in ("extending.md", "families_and_devices.md")]
_BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """A section of a page.

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


def recipes() -> Iterator[Recipe]:
    """Yield the sections of the pages that show files."""
    for page in PAGES:
        for section in re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]:
            files = dict(_BLOCK.findall(section))
            if files:
                yield Recipe(section.partition("\n")[0], files)
