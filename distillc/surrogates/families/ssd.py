"""Mamba-2: one decay rate per head (arXiv 2405.21060, section 7)."""

from __future__ import annotations

from collections.abc import Mapping

from distillc.surrogates.family import Family
from distillc.surrogates.scan import ScanSurrogate

HEAD = 16
"""Channels of a head, or the largest number below that divides the channels scanned."""


def _build(channels: int, whole_block: bool, options: Mapping[str, int]) -> ScanSurrogate:
    directions, state, expansion = (options[each] for each in ("directions", "state", "expansion"))
    inner = channels * expansion
    head = next(size for size in range(min(HEAD, inner), 0, -1) if inner % size == 0)
    return ScanSurrogate(channels, whole_block, directions, state, expansion, head)


SSD = Family(
    name="ssd",
    does="Mamba-2: one decay rate per head",
    build=_build,
    defaults={"state": 8, "expansion": 1, "directions": 1},
    limits={"state": 64, "expansion": 2, "directions": 4},
)
