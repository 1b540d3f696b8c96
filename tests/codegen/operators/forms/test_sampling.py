"""Reading between the pixels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

from tests.codegen.operators.programs import check_prepared

MODES = st.sampled_from(["bilinear", "nearest", "bicubic"])
PADDINGS = st.sampled_from(["zeros", "border", "reflection"])


@given(MODES, PADDINGS, st.booleans(), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_grids(mode: str, padding: str, align: bool, height: int, width: int) -> None:
    torch.manual_seed(0)
    grid = 2.5 * torch.rand(2, 4, 3, 2) - 1.25  # some places are outside

    def sampled(x: torch.Tensor) -> torch.Tensor:
        moved = grid + 0.1 * x.mean()
        return F.grid_sample(x, moved, mode, padding, align)

    found = check_prepared(sampled, torch.rand(2, 3, height, width))
    assert "grid_sampler_2d" not in found


@given(MODES.filter(lambda each: each != "bicubic"), PADDINGS, st.booleans(), st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_grids_of_volumes(mode: str, padding: str, align: bool, depth: int) -> None:
    """What looks a colour up in a cube: learned tables of three dimensions, bilateral grids."""
    torch.manual_seed(0)
    grid = 2.5 * torch.rand(2, 2, 4, 3, 3) - 1.25

    def sampled(x: torch.Tensor) -> torch.Tensor:
        moved = grid + 0.1 * x.mean()
        return F.grid_sample(x, moved, mode, padding, align)

    found = check_prepared(sampled, torch.rand(2, 3, depth, 5, 4))
    assert not any(name.startswith("grid_sampler") for name in found)


def test_affine_grids() -> None:
    def turned(x: torch.Tensor) -> torch.Tensor:
        turn = torch.tensor([[[0.8, -0.6, 0.1], [0.6, 0.8, 0.0]]]) * (1 + 0.01 * x.mean())
        return F.grid_sample(x, F.affine_grid(turn, list(x.shape), False), align_corners=False)

    assert "affine_grid_generator" not in check_prepared(turned, torch.rand(1, 3, 8, 6))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("groups", "parts", "options"),
    [
        (1, 1, {}),
        (2, 1, {"padding": 1, "stride": 2}),
        (1, 2, {"padding": (2, 1), "dilation": (2, 1)}),
        (2, 4, {"padding": 1, "bias": False}),
    ],
)
def test_deformable_convolutions(
    groups: int, parts: int, options: dict[str, object], masked: bool
) -> None:
    torch.manual_seed(0)

    class Deformable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = DeformConv2d(4, 6, 3, groups=groups, **options)
            plain = {name: each for name, each in options.items() if name != "bias"}
            self.moves = nn.Conv2d(4, 27 * parts, 3, **plain)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moves, mask = self.moves(x).split([18 * parts, 9 * parts], 1)
            return self.conv(x, 2 * moves, mask.sigmoid() if masked else None)

    found = check_prepared(Deformable(), torch.rand(2, 4, 9, 8))
    assert "deform_conv2d" not in found


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
@settings(max_examples=10, deadline=None)
def test_patches_that_overlap_or_leave_gaps(
    height: int, width: int, stride: int, padding: int
) -> None:
    def folded(x: torch.Tensor) -> torch.Tensor:
        options = {"padding": padding, "stride": (stride, max(1, stride - 1))}
        patches = F.unfold(x, (height, width), **options)
        return F.fold(patches * 0.5, (9, 8), (height, width), **options)

    assert not {"col2im", "index_put"} & set(check_prepared(folded, torch.rand(2, 3, 9, 8)))


@pytest.mark.parametrize("dilation", [(2, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_dilated_patches(dilation: tuple[int, int], stride: int | tuple[int, int]) -> None:
    options = {"dilation": dilation, "stride": stride, "padding": 1}

    def folded(x: torch.Tensor) -> torch.Tensor:
        return F.fold(F.unfold(x, (3, 2), **options) * 0.5, (9, 8), (3, 2), **options)

    assert not {"col2im", "index_put"} & set(check_prepared(folded, torch.rand(2, 3, 9, 8)))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_affine_grids_of_a_pixel(size: tuple[int, int], align_corners: bool) -> None:
    """Of one pixel too, where torch's own form is no functional program."""

    def warp(x: torch.Tensor) -> torch.Tensor:
        theta = torch.tensor([[[0.9, 0.2, 0.1], [-0.1, 0.8, 0.05]]]) * (1 + x.mean())
        grid = F.affine_grid(theta, [1, 2, *size], align_corners)
        return F.grid_sample(x, grid, align_corners=align_corners)

    assert "affine_grid_generator" not in check_prepared(warp, torch.rand(1, 2, *size))
