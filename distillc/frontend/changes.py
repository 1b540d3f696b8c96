"""What distillc changed in a checkpoint or left out of it, told to the user."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from distillc.printable import printable

log = logging.getLogger(__name__)


def tell(path: Path, changes: Iterable[str]) -> None:
    """Log each change of a file's weights as a warning of one line, with names escaped."""
    for each in changes:
        log.warning("%s: %s", printable(path.name), printable(each))


def shortened(names: Sequence[str], most: int = 4) -> str:
    """Return the first of some names, and how many there are if that is not all."""
    more = f" ... ({len(names)})" if len(names) > most else ""
    return ", ".join(names[:most]) + more
