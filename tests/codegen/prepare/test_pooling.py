"""Pooling to a given size."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.codegen.prepare.programs import check_prepared

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(SIZES, SIZES)
@settings(max_examples=20, deadline=None)
def test_average_of_bins(size: tuple[int, int], bins: tuple[int, int]) -> None:
    found = check_prepared(lambda x: F.adaptive_avg_pool2d(x, bins), torch.rand(2, 3, *size))
    divided = size[0] % bins[0] == 0 and size[1] % bins[1] == 0
    assert divided or "_adaptive_avg_pool2d" not in found
