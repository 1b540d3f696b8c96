"""Where in the user's code something happens."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn

_NOT_THEIRS = tuple(
    f"{folder}/" for folder in (Path(torch.__file__).parent, Path(__file__).parents[2])
)
"""Folders whose code is never the user's: torch and distillc."""


Line = tuple[str, int]
"""Path of a file, and the number of a line of it."""


@dataclass(frozen=True)
class Place:
    """A line of the user's code, and the module that it ran for.

    Attributes:
        module: Path of the innermost module; "" for the network.
        file: Path of the file.
        line: The line.
        function: Name of the function.
    """

    module: str
    line: Line
    function: str

    def __str__(self) -> str:
        file, number = self.line
        return f"{file.removeprefix(f'{Path.cwd()}/')}:{number} in {self.function}"

    @property
    def source(self) -> str:
        """What the line says."""
        return linecache.getline(*self.line).strip()


def is_theirs(file: str) -> bool:
    """Whether a file is neither torch's nor ours."""
    return not file.startswith(_NOT_THEIRS)


def module_paths(network: nn.Module) -> dict[int, str]:
    """Return the paths of a network's modules by what `here` recognises them by."""
    return {id(vars(each)): path for path, each in network.named_modules()}


def here(paths: Mapping[int, str]) -> Place:
    """Return the place that is being run.

    Args:
        paths: Modules to look for, as of `module_paths`.
    """
    frame: FrameType | None = sys._getframe(1)
    theirs: FrameType | None = None
    module: str | None = None
    while frame and (theirs is None or module is None):
        if theirs is None and is_theirs(frame.f_code.co_filename):
            theirs = frame
        given = frame.f_locals.get("self")
        # While torch exports, modules are stood in for by objects that share their attributes.
        if module is None and isinstance(given, nn.Module):
            module = paths.get(id(vars(given)))
        frame = frame.f_back
    assert theirs is not None  # whoever called us
    code = theirs.f_code
    return Place(module or "", (code.co_filename, theirs.f_lineno), code.co_name)
