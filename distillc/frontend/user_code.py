"""Networks whose Python is the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Within it, modules of a folder are found first, as `python -m` does; afterwards last.

    A network may import its neighbours as late as when it runs.
    """
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        if place not in sys.path:
            sys.path.append(place)


def import_class(arch: str) -> Any:
    """Return a class by `package.module:Class` or `file.py:Class`.

    Modules are looked for in the current folder first, a file's neighbours beside it.

    Raises:
        ValueError: One of the two names is missing.
        Exception: Whatever the code raises as it is imported.
    """
    source, _, name = arch.rpartition(":")
    if not source or not name:
        raise ValueError("there is no module and class on both sides of a colon")
    if not source.endswith(".py"):
        with importing_from(Path()):
            return getattr(importlib.import_module(source), name)
    path = Path(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # of a name that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with importing_from(path.parent):
        sys.modules[path.stem] = module  # dataclasses and pickles look their module up
        spec.loader.exec_module(module)
    return getattr(module, name)
