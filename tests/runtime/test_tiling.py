"""Tiling: whatever the size, tiles cover the image and leave no seam."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from distillc.errors import UsageError
from distillc.runtime.tiling import Tiling

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))
edges = st.tuples(st.integers(8, 32), st.integers(8, 32))


@given(sizes, edges, st.integers(0, 4), st.integers(1, 3))
def test_what_is_cut_is_joined(size, tile, overlap, scale) -> None:
    tiling = Tiling(size, tile, overlap)
    image = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    tiles = tiling.cut(image)
    assert tiles.shape == (len(tiling.origins), 3, *tile)
    larger = tiles.repeat(scale, 2).repeat(scale, 3)
    joined = tiling.join(larger, scale)
    np.testing.assert_allclose(joined, image.repeat(scale, 2).repeat(scale, 3), rtol=1e-6)
    assert joined.dtype == np.float32


@given(sizes, st.integers(4, 16), st.integers(0, 2))
def test_no_seam_where_a_pixel_sees_a_quarter_of_the_overlap(size, overlap, radius) -> None:
    radius = min(radius, overlap // 4)

    def blur(x: np.ndarray) -> np.ndarray:
        return uniform_filter(x, (0, 0, 2 * radius + 1, 2 * radius + 1), mode="reflect")

    # A mirrored image goes on like the filter's own border, as far as it goes.
    missing = [max(0, whole - own) for own, whole in zip(size, (40, 32), strict=True)]
    assume(all(extent == 0 or extent >= radius for extent in missing))
    tiling = Tiling(size, (40, 32), overlap)
    image = np.random.default_rng(0).random((1, 2, *size), dtype=np.float32)
    np.testing.assert_allclose(tiling.join(blur(tiling.cut(image))), blur(image), atol=1e-5)


def test_tiles_of_one_size_are_the_image_itself() -> None:
    tiling = Tiling((32, 48), (32, 48), 8)
    assert tiling.origins == [(0, 0)]


def test_neighbours_share_what_was_asked_for() -> None:
    rows = sorted({top for top, _ in Tiling((720, 64), (256, 64), 32).origins})
    assert rows == [0, 155, 309, 464]
    assert all(after - before <= 256 - 32 for before, after in pairwise(rows))


@pytest.mark.parametrize("overlap", [-1, 17])
def test_overlap_that_cannot_be(overlap) -> None:
    with pytest.raises(UsageError, match="cannot overlap"):
        Tiling((64, 64), (32, 32), overlap)
