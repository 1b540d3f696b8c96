"""What distillc knows of torch's operators beyond TVM's importer: a file for each kind.

A file may have three tables by operator. `DECOMPOSITIONS` has functions that compute it by other
operators; where one returns `NotImplemented` the operator stays as it is. `CONVERSIONS` has
functions (context, node, importer) -> relax.Var, which import it. `TRANSLATIONS` has its form in
ONNX, for `torch.onnx.export`. To add an operator, add it to a file here, or add a file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any


def _gather(name: str) -> dict[Any, Any]:
    """Return the tables of one name of all files here, as one.

    Raises:
        ValueError: Two files have the same operator.
    """
    found: dict[Any, Any] = {}
    for each in pkgutil.iter_modules(__path__):
        table = getattr(import_module(f"{__name__}.{each.name}"), name, {})
        if twice := sorted(map(str, found.keys() & table.keys())):
            raise ValueError(f"{name} of {each.name}: {', '.join(twice)}, which another file has")
        found |= table
    return found


DECOMPOSITIONS = _gather("DECOMPOSITIONS")
CONVERSIONS = _gather("CONVERSIONS")
TRANSLATIONS = _gather("TRANSLATIONS")
