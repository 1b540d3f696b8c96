"""Modules on images and on tokens are compiled and timed alike."""

from __future__ import annotations

import pytest
from torch import nn

from distillc.codegen.tuning.time_modules import time_modules


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 6, 4), (6, 1, 4)])
def test_every_layout_of_a_block_is_timed(shape: tuple[int, ...]) -> None:
    found = time_modules([nn.Identity(), nn.Linear(4, 4)], shape, threads=1, runs=2)
    assert [each.runs for each in found] == [2, 2]
    assert all(each.median_ms > 0 for each in found)
