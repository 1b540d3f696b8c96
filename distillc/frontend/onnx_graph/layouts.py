"""ONNX operators that move elements and compute nothing."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillc.frontend.onnx_graph.operator import (
    Attributes,
    Function,
    Known,
    Operator,
    check_supported,
    integers,
)

PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _reshape(attributes: Attributes) -> Function:
    def reshape(x: Tensor, shape: Known) -> Tensor:
        extents = integers(shape) or []
        if not attributes.get("allowzero"):
            extents = [each or x.shape[axis] for axis, each in enumerate(extents)]
        return x.reshape(extents)

    return reshape


def _flatten(attributes: Attributes) -> Function:
    axis = attributes.get("axis", 1)
    return lambda x: x.reshape(prod(x.shape[:axis]), -1)


def _transpose(attributes: Attributes) -> Function:
    order = attributes.get("perm")
    return lambda x: x.permute(order or list(range(x.dim()))[::-1])


def _squeeze(attributes: Attributes) -> Function:
    def squeeze(x: Tensor, axes: Known | None = None) -> Tensor:
        places = integers(axes)
        return x.squeeze() if places is None else x.squeeze(places)

    return squeeze


def _unsqueeze(attributes: Attributes) -> Function:
    def unsqueeze(x: Tensor, axes: Known) -> Tensor:
        places = integers(axes) or []
        rank = x.dim() + len(places)
        for axis in sorted(each % rank for each in places):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


def _expand(x: Tensor, shape: Known) -> Tensor:
    return torch.broadcast_to(x, torch.broadcast_shapes(x.shape, integers(shape) or []))


def _concat(attributes: Attributes) -> Function:
    return lambda *xs: torch.cat(xs, attributes["axis"])


def _split(attributes: Attributes) -> Function:
    axis, parts = attributes.get("axis", 0), attributes["outputs"]

    def split(x: Tensor, sizes: Known | None = None) -> tuple[Tensor, ...]:
        even = -(-x.shape[axis] // parts)  # the last may be smaller
        return torch.split(x, integers(sizes) or even, axis)

    return split


def _slice(
    x: Tensor,
    starts: Known,
    ends: Known,
    axes: Known | None = None,
    steps: Known | None = None,
) -> Tensor:
    firsts, lasts = integers(starts) or [], integers(ends) or []
    places = integers(axes) or range(len(firsts))
    strides = integers(steps) or [1] * len(firsts)
    for axis, first, last, stride in zip(places, firsts, lasts, strides, strict=True):
        size = x.shape[axis]
        if stride < 0 and last < -size:
            taken = range(size)[first::stride]
        else:
            taken = range(size)[first:last:stride]
        whole = [slice(None)] * (axis % x.dim())
        if stride > 0:
            x = x[(*whole, slice(taken.start, taken.stop, stride))]
        else:  # torch takes no negative steps
            turned = taken[::-1]
            x = x[(*whole, slice(turned.start, turned.stop, -stride))].flip(axis)
    return x


def _gather(attributes: Attributes) -> Function:
    axis = attributes.get("axis", 0)

    def gather(x: Tensor, places: Known | Tensor) -> Tensor:
        places = places % x.shape[axis]  # torch takes none that is negative
        if not isinstance(places, Tensor):
            if places.ndim == 0:
                return x.select(axis, int(places))
            places = torch.from_numpy(places)
        taken = x.index_select(axis, places.reshape(-1))
        before, after = x.shape[: axis % x.dim()], x.shape[axis % x.dim() + 1 :]
        return taken.reshape(*before, *places.shape, *after)

    return gather


def _tile(x: Tensor, repeats: Known) -> Tensor:
    return x.repeat(integers(repeats) or [])


def _pad(attributes: Attributes) -> Function:
    mode = attributes.get("mode", "constant")
    check_supported(mode in PAD_MODES, f"pads by {mode}")

    def pad(
        x: Tensor, pads: Known, value: Known | None = None, axes: Known | None = None
    ) -> Tensor:
        amounts = integers(pads) or []
        places = [each % x.dim() for each in integers(axes) or range(x.dim())]
        around = dict(zip(places, zip(amounts, amounts[len(places) :], strict=False), strict=True))
        first = min((axis for axis, each in around.items() if any(each)), default=x.dim())
        if mode != "constant":  # torch takes both axes of an image, or none
            first = min(first, max(x.dim() - 2, 1))
        flat = [each for axis in range(first, x.dim()) for each in around.get(axis, (0, 0))]
        # torch lists the last axis first.
        ordered = [each for axis in range(len(flat), 0, -2) for each in flat[axis - 2 : axis]]
        filler: Any = None if value is None or mode != "constant" else value.item()
        return F.pad(x, ordered, PAD_MODES[mode], filler) if ordered else x

    return pad


def _depth_to_space(attributes: Attributes) -> Function:
    edge = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, edge)

    def spread(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, edge, edge, c // edge**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // edge**2, h * edge, w * edge)

    return spread


def _space_to_depth(attributes: Attributes) -> Function:
    edge = attributes["blocksize"]

    def gather(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // edge, edge, w // edge, edge).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * edge**2, h // edge, w // edge)

    return gather


OPERATORS: dict[str, Operator] = {
    "Concat": Operator(_concat),
    "DepthToSpace": Operator(_depth_to_space),
    "Expand": Operator(lambda attributes: _expand, known=(1,)),
    "Flatten": Operator(_flatten),
    "Gather": Operator(_gather, either=(1,)),
    "Pad": Operator(_pad, known=(1, 2, 3)),
    "Reshape": Operator(_reshape, known=(1,)),
    "Slice": Operator(lambda attributes: _slice, known=(1, 2, 3, 4)),
    "SpaceToDepth": Operator(_space_to_depth),
    "Split": Operator(_split, known=(1,)),
    "Squeeze": Operator(_squeeze, known=(1,)),
    "Tile": Operator(lambda attributes: _tile, known=(1,)),
    "Transpose": Operator(_transpose),
    "Unsqueeze": Operator(_unsqueeze, known=(1,)),
}
"""By the names of the ONNX operators."""
