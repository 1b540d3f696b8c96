"""One selective scan along rows."""

from __future__ import annotations

from collections.abc import Mapping

from distillc.surrogates.family import Family
from distillc.surrogates.scan import ScanSurrogate


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> ScanSurrogate:
    return ScanSurrogate(channels, whole_block, 1, options["state"], options["expansion"])


SCAN1 = Family(
    name="scan1",
    does="one selective scan along rows",
    build=_build,
    defaults={"state": 1, "expansion": 1},
    limits={"state": 4, "expansion": 2},
)
