"""Resizing, pooling, sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator


@operator("resizing")
def interpolate(draw: Draw, x: Tensor) -> Layer:
    mode = draw.one("nearest", "nearest-exact", "bilinear", "bicubic", "area")
    smooth = mode in ("bilinear", "bicubic")
    corners = draw.chance(0.4) if smooth else None
    given: dict[str, object] = {"mode": mode, "align_corners": corners}
    # A column of pixels, given or made, torch 2.14 itself fills with its first pixel.
    if smooth and not corners and x.shape[3] > 1 and draw.chance(0.3):
        given["antialias"] = True
    if draw.chance(0.5):
        given["size"] = tuple(draw.some(1, 2 * extent + 1) for extent in x.shape[2:])
    else:
        given["scale_factor"] = draw.one(2, 3, 0.5, 1.5, 0.3, (2, 1), (0.5, 1.7))
        given["recompute_scale_factor"] = draw.one(None, None, True)
    if F.interpolate(x, **given).shape[3] == 1:  # type: ignore[arg-type]
        given.pop("antialias", None)
    return Layer(
        described("interpolate", given),
        lambda x: F.interpolate(x, **given),  # type: ignore[arg-type]
    )


@operator("resizing")
def pool(draw: Draw, x: Tensor) -> Layer:
    kernel = (draw.some(1, 4), draw.some(1, 4))
    stride = (draw.some(1, 3), draw.some(1, 3))
    padding = tuple(draw.some(0, each // 2) for each in kernel)
    ceil, dilation = draw.chance(0.4), draw.one(1, 1, 2)
    name = draw.one("max", "avg", "avg exclusive", "avg divisor", "lp")
    ways = {
        "max": lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil),
        "avg": lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil),
        "avg exclusive": lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, False),
        "avg divisor": lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, True, 3),
        "lp": lambda x: F.lp_pool2d(x.abs() + 0.1, 2, kernel, stride, ceil),
    }
    given = {"kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil}
    return Layer(described(f"{name} pool", given | {"dilation": dilation}), ways[name])


@operator("resizing")
def adaptive_pool(draw: Draw, x: Tensor) -> Layer:
    size = tuple(draw.one(1, extent, draw.some(1, extent + 2)) for extent in x.shape[2:])
    name = draw.one("avg", "avg", "max")
    function = F.adaptive_avg_pool2d if name == "avg" else F.adaptive_max_pool2d
    return Layer(described(f"adaptive {name} pool", {"size": size}), lambda x: function(x, size))


@operator("resizing")
def pool1d(draw: Draw, x: Tensor) -> Layer:
    kernel, stride, ceil = draw.some(1, 4), draw.some(1, 3), draw.chance(0.4)
    name = draw.one("max", "avg", "adaptive")
    ways = {
        "max": lambda x: F.max_pool1d(x.flatten(2), kernel, stride, kernel // 2, 1, ceil),
        "avg": lambda x: F.avg_pool1d(x.flatten(2), kernel, stride, kernel // 2, ceil),
        "adaptive": lambda x: F.adaptive_avg_pool1d(x.flatten(2), kernel),
    }
    return Layer(
        described(f"{name} pool1d", {"kernel": kernel, "stride": stride, "ceil": ceil}), ways[name]
    )


@operator("resizing")
def sample(draw: Draw, x: Tensor) -> Layer:
    """grid_sample at places that the image decides."""
    mode, corners = draw.one("bilinear", "nearest"), draw.chance(0.5)
    padding = draw.one("zeros", "border", "reflection")

    def run(x: Tensor, weight: Tensor) -> Tensor:
        grid = torch.tanh(F.conv2d(x, weight)).permute(0, 2, 3, 1) * 1.2
        return F.grid_sample(x, grid, mode, padding, corners)

    given = {"mode": mode, "padding": padding, "align_corners": corners}
    return Layer(described("grid_sample", given), run, draw.weight(2, x.shape[1], 1, 1))


@operator("resizing")
def warp(draw: Draw, x: Tensor) -> Layer:
    """A fixed affine grid: its constants are computed when it is compiled."""

    def run(x: Tensor, theta: Tensor) -> Tensor:
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, "bilinear", "border", align_corners=False)

    return Layer("affine warp", run, draw.normal(1, 2, 3, scale=0.7))
