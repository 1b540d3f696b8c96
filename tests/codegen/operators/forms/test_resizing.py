"""Resizing by products."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from distillc.codegen.operators.prepare import decompose
from tests.codegen.operators.programs import check_prepared
from tests.codegen.schedule.rules.kernels import Function

# Torch repeats the first row of an image one pixel wide where it smooths (2.14).
SIZES = st.tuples(st.integers(2, 9), st.integers(2, 9))


@given(SIZES, SIZES)
@settings(max_examples=10, deadline=None)
def test_average_of_bins(size: tuple[int, int], bins: tuple[int, int]) -> None:
    found = check_prepared(lambda x: F.adaptive_avg_pool2d(x, bins), torch.rand(2, 3, *size))
    divided = size[0] % bins[0] == 0 and size[1] % bins[1] == 0
    assert divided or "_adaptive_avg_pool2d" not in found


@given(st.sampled_from(["bilinear", "bicubic"]), SIZES, SIZES, st.booleans())
@settings(max_examples=10, deadline=None)
def test_antialiased(
    mode: str, size: tuple[int, int], result: tuple[int, int], align_corners: bool
) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, result, mode=mode, align_corners=align_corners, antialias=True)

    found = check_prepared(resized, torch.rand(2, 3, *size))
    assert not any("upsample" in name for name in found)


@pytest.mark.parametrize("result", [(1, 5), (9, 1), (1, 1)])
def test_between_the_corners_of_one_pixel(result: tuple[int, int]) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, result, mode="bilinear", align_corners=True)

    found = check_prepared(resized, torch.rand(1, 3, 4, 6))
    assert not any("upsample" in name for name in found)


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7])
def test_antialiased_by_a_factor(factor: float) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bicubic", antialias=True)

    check_prepared(resized, torch.rand(1, 3, 11, 16))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.3, 0.5, 1.1, 1.5, 1.7, 2.0, 2.5, 3.0])
)
@settings(max_examples=8, deadline=None)
def test_factors_that_are_no_quotients_of_the_sizes(
    mode: str, height: int, width: int, factor: float
) -> None:
    """TVM's importer takes them for the quotients; compiled code read other pixels."""
    assume(min(height, width) * factor >= 1)
    resize = functools.partial(F.interpolate, scale_factor=factor, mode=mode)
    found = check_prepared(lambda x: resize(x), torch.randn(1, 2, height, width))
    counts = [(n, int(n * factor)) for n in (height, width)]
    kept = all(count in (n, n * factor) for n, count in counts)
    if mode == "nearest":
        kept = all(
            count in (n, 2 * n) or count == n * factor == n * round(factor) for n, count in counts
        )
    assert ("upsample_" + ("nearest2d" if mode == "nearest" else "bilinear2d") in found) == kept


@given(st.tuples(*[st.integers(1, 9)] * 4))
@settings(max_examples=8, deadline=None)
def test_nearest_pixels_of_any_size(sizes: tuple[int, int, int, int]) -> None:
    x = torch.randn(1, 2, *sizes[:2])
    check_prepared(lambda x: F.interpolate(x, sizes[2:], mode="nearest"), x)


@given(
    *[st.tuples(st.integers(1, 4), st.integers(1, 4))] * 2,
    st.booleans(),
    st.tuples(st.integers(4, 9), st.integers(4, 9)),
    st.booleans(),
)
@settings(max_examples=8, deadline=None)
def test_means_with_a_divisor_of_the_users(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    ceil: bool,
    size: tuple[int, int],
    padded: bool,
) -> None:
    """TVM's importer drops the divisor."""
    padding = (kernel[0] // 2, kernel[1] // 2) if padded else 0

    def pool(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, kernel, stride, padding, ceil, divisor_override=3)

    check_prepared(pool, torch.randn(1, 2, *size))
    program = torch.export.export(Function(pool), (torch.randn(1, 2, *size),))
    assert all(
        len(node.args) < 7
        for node in decompose(program).graph.nodes
        if node.target is torch.ops.aten.avg_pool2d.default
    )
