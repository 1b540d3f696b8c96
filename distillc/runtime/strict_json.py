"""JSON from anywhere: read within bounds, each key once, numbers finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillc.errors import UsageError, reason

MOST_BYTES = 64 << 20
"""Larger files are not read; manifests of large networks have some hundred kilobytes."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds none; or a key twice, a number that is not finite, lists too deep, or
            more than `MOST_BYTES`.
    """
    with path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
    try:
        entries = json.loads(
            data.decode(), object_pairs_hook=_each_once, parse_constant=_no, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("lists inside lists without end") from error
    if not isinstance(entries, dict):
        raise ValueError("not a JSON object")
    return entries


def plain_json(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return entries as JSON has them: lists for tuples, null where a number is not finite.

    Raises:
        UsageError: JSON has nothing for a value.
    """
    try:
        found = json.loads(json.dumps(entries), parse_constant=lambda _: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"a manifest cannot hold this: {reason(error)}", hint="give it JSON values"
        ) from error
    return dict(found)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key stands there twice")
    return entries


def _no(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number
