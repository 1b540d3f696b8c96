"""Rows and columns scanned both ways, as in VMamba (arXiv 2401.10166, section 4)."""

from __future__ import annotations

from collections.abc import Mapping

from distillc.surrogates.family import Family
from distillc.surrogates.scan import ScanSurrogate


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> ScanSurrogate:
    return ScanSurrogate(channels, whole_block, 4, options["state"], options["expansion"])


SS2D = Family(
    name="ss2d",
    does="rows and columns scanned both ways: the quality ceiling, slow",
    build=_build,
    defaults={"state": 16, "expansion": 2},
    limits={"state": 16, "expansion": 2},
)
