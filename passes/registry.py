"""The passes by name."""

from __future__ import annotations

from typing import Any

from distillc.pipeline import Pass
from distillc.registry import Registry


def _accept(found: Any) -> type[Pass]:
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise TypeError("it is not a subclass of Pass")
    return found


PASSES = Registry("distillc.passes", "pass", _accept, lambda found: found.__name__)
"""An entry point names a subclass of `Pass`."""
