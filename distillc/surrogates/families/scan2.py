"""Rows scanned both ways."""

from __future__ import annotations

from collections.abc import Mapping

from distillc.surrogates.family import Family
from distillc.surrogates.scan import ScanSurrogate


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> ScanSurrogate:
    return ScanSurrogate(channels, whole_block, 2, options["state"], options["expansion"])


SCAN2 = Family(
    name="scan2",
    does="rows scanned both ways",
    build=_build,
    defaults={"state": 1, "expansion": 1},
    limits={"state": 4, "expansion": 2},
)
