"""Reading between the pixels: grids and deformable convolutions as lookups of neighbours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten

_NEAREST, _BICUBIC = 1, 2
_ZEROS, _REFLECTION = 0, 2

_Taps = list[tuple[Tensor, Tensor]]
"""Whole places along one axis, and the share that each has."""


def _grid_sampler(x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool) -> Tensor:
    """Read an image where a grid says, as `torch.nn.functional.grid_sample` does.

    Args:
        x: (N, C, H, W), or (N, C, D, H, W).
        grid: (N, H', W', 2), columns and rows in [-1, 1]; or (N, D', H', W', 3).
        mode: 0 bilinear, 1 nearest, 2 bicubic.
        padding: 0 zeros, 1 border, 2 reflection.
        align_corners: Whether -1 and 1 are the centres of the outer pixels, or else their edges.

    Returns:
        (N, C, H', W'), or (N, C, D', H', W').
    """
    margin = 0.0 if align_corners else 0.5
    taps = []
    for axis, extent in enumerate(x.shape[2:]):
        each = grid[..., x.dim() - 3 - axis].flatten(1)
        place = (
            (each + 1) * ((extent - 1) / 2) if align_corners else (each + 1) * (extent / 2) - 0.5
        )
        if mode == _BICUBIC:  # its neighbours are brought inside, not the place itself
            near = _cubic(place)
            taps.append([(_padded(at, extent, padding, margin), share) for at, share in near])
            continue
        place = _padded(place, extent, padding, margin)
        taps.append(
            [(place.round(), torch.ones_like(place))] if mode == _NEAREST else _linear(place)
        )
    return _weighed(x, taps).reshape(*x.shape[:2], *grid.shape[1:-1])


def deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    *numbers: Any,
) -> Tensor:
    """Convolve with taps that are moved at every pixel (Zhu et al., Deformable ConvNets v2, 2019).

    Args:
        x: (N, C, H, W).
        weight: (C', C / groups, K, L).
        offset: (N, 2 G K L, H', W'), rows and columns in turn, G groups of channels.
        mask: (N, G K L, H', W'); unused where the last of `numbers` is false.
        bias: (C',).
        numbers: Strides, paddings and dilations, each down and across; groups, G, and whether there
            is a mask.

    Returns:
        (N, C', H', W').
    """
    strides, paddings, dilations = numbers[:2], numbers[2:4], numbers[4:6]
    groups, parts, masked = numbers[6:]
    batch, channels = x.shape[:2]
    *size, taps = *offset.shape[2:], weight.shape[2] * weight.shape[3]
    moved = offset.reshape(batch * parts, taps, 2, *size)
    places = []
    for axis in range(2):
        starts = torch.arange(size[axis]) * strides[axis] - paddings[axis]
        tap = torch.arange(weight.shape[2 + axis]) * dilations[axis]
        still = tap.reshape((-1, 1) if axis == 0 else (1, -1)).expand(weight.shape[2:])
        lines = starts.reshape((-1, 1) if axis == 0 else (1, -1))
        places.append((moved[:, :, axis] + (still.reshape(-1, 1, 1) + lines)).flatten(1))
    found = _weighed(x.reshape(batch * parts, -1, *x.shape[2:]), [_linear(each) for each in places])
    found = found.reshape(batch, parts, channels // parts, taps, -1)
    if masked:
        found = found * mask.reshape(batch, parts, 1, taps, -1)
    found = found.reshape(batch, groups, channels // groups * taps, -1)
    result = weight.reshape(1, groups, -1, found.shape[2]) @ found
    return result.reshape(batch, -1, *size) + bias.reshape(-1, 1, 1)


def _padded(place: Tensor, extent: int, padding: int, margin: float) -> Tensor:
    """Bring places outside to where their values come from; zeros stay outside."""
    if padding == _ZEROS:
        return place
    if padding == _REFLECTION:
        place = _reflect(place, extent, margin)
    # Bounds that are whole numbers get lost in torch 2.14's export to ONNX.
    return place.clamp(0.0, extent - 1.0)


def _reflect(place: Tensor, extent: int, margin: float) -> Tensor:
    """Mirror places at -margin and extent - 1 + margin, as often as need be."""
    length = extent - 1 + 2 * margin
    if not length:
        return torch.zeros_like(place)
    turned = (place + margin).abs()
    rest = turned - 2 * length * (turned / (2 * length)).floor()
    return torch.minimum(rest, 2 * length - rest) - margin


def _linear(place: Tensor) -> _Taps:
    """Return both neighbours of places."""
    first = place.floor()
    return [(first, 1 - (place - first)), (first + 1, place - first)]


def _cubic(place: Tensor) -> _Taps:
    """Return four neighbours of places, weighed by Keys' kernel with a = -3/4."""
    first = place.floor()
    t = place - first
    u = 1 - t
    shares = [
        -0.75 * t * u * u,
        (1.25 * t - 2.25) * t * t + 1,
        (1.25 * u - 2.25) * u * u + 1,
        -0.75 * u * t * t,
    ]
    return [(first + float(number - 1), share) for number, share in enumerate(shares)]


def _weighed(x: Tensor, taps: Sequence[_Taps]) -> Tensor:
    """Read images (N, C, ...) at the taps (N, P) of each axis, zeros around: (N, C, P)."""
    found = None
    for chosen in itertools.product(*taps):
        share = chosen[0][1]
        for _, other in chosen[1:]:
            share = share * other
        term = _at(x, [place for place, _ in chosen], share)
        found = term if found is None else found + term
    assert found is not None
    return found


def _at(x: Tensor, places: Sequence[Tensor], share: Tensor) -> Tensor:
    """Read pixels at whole places of each axis and weigh them; none are outside."""
    batch, channels, *extents = x.shape
    inside, flat = torch.ones((), dtype=torch.bool), torch.zeros(())
    for place, extent in zip(places, extents, strict=True):
        inside = inside & (place >= 0) & (place < extent)
        flat = flat * extent + place.clamp(0.0, extent - 1.0)
    first = (torch.arange(batch) * math.prod(extents)).reshape(-1, 1)
    pixels = x.transpose(0, 1).reshape(channels, -1)
    found = torch.index_select(pixels, 1, (flat.to(torch.int64) + first).reshape(-1))
    found = found.reshape(channels, batch, -1).transpose(0, 1)
    return found * torch.where(inside, share, 0.0).unsqueeze(1)


def _col2im(
    x: Tensor,
    output_size: Any,
    kernel: Any,
    dilation: Any,
    padding: Any,
    stride: Any,
) -> Tensor:
    """Add up patches (N, C K L, P) side by side, as `torch.nn.functional.fold` does.

    Patches are cut into parts of the stride's size. The first parts of all patches cover an image
    without overlap, so do the second, and so on: as many images as there are parts are added up.
    Between the rows and columns of dilated patches are zeros.
    """
    batch = x.shape[:-2]
    x = x.reshape(-1, *kernel, x.shape[-1])
    for axis, step in enumerate(dilation, 1):
        own = (x.shape[axis] - 1) * step + 1
        edges = [0, 0] * (x.dim() - axis - 1) + [0, step - 1]
        x = F.pad(x.unsqueeze(axis + 1), edges).flatten(axis, axis + 1).narrow(axis, 0, own)
    kernel = x.shape[1:3]
    counts = [
        (size + 2 * pad - own) // step + 1
        for size, pad, own, step in zip(output_size, padding, kernel, stride, strict=True)
    ]
    parts = [-(-own // step) for own, step in zip(kernel, stride, strict=True)]
    x = x.reshape(-1, *kernel, *counts)
    missing = [n * step - own for n, step, own in zip(parts, stride, kernel, strict=True)]
    if any(missing):
        x = F.pad(x, (0, 0, 0, 0, 0, missing[1], 0, missing[0]))
    x = x.reshape(-1, parts[0], stride[0], parts[1], stride[1], *counts)
    total = None
    for down in range(parts[0]):
        for across in range(parts[1]):
            part = x[:, down, :, across].permute(0, 3, 1, 4, 2)
            part = part.reshape(-1, counts[0] * stride[0], counts[1] * stride[1])
            edges = []
            for axis, place in ((1, across), (0, down)):
                first = place * stride[axis] - padding[axis]
                edges += [first, output_size[axis] - first - part.shape[1 + axis]]
            moved = F.pad(part, edges) if any(edges) else part  # a negative edge cuts
            total = moved if total is None else total + moved
    assert total is not None
    return total.reshape(*batch, -1, *output_size)


def _affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Return the places that affine maps (N, 2, 3) give, (N, H, W, 2); torch's form cannot be
    exported where a side is one pixel."""
    if len(size) != 4:
        return NotImplemented
    ys, xs = (_centres(extent, align_corners).to(theta.dtype) for extent in size[2:])
    rows, columns = len(ys), len(xs)
    places = torch.stack(
        [
            xs.expand(rows, columns),
            ys[:, None].expand(rows, columns),
            torch.ones(rows, columns, dtype=theta.dtype),
        ],
        -1,
    )
    flat = places.reshape(1, -1, 3) @ theta.transpose(1, 2)
    return flat.reshape(size[0], rows, columns, 2)


def _centres(extent: int, align_corners: bool) -> Tensor:
    """Return the pixels of a side on the way from -1 to 1."""
    if extent == 1:
        return torch.zeros(1)
    number = torch.arange(extent, dtype=torch.float32)
    if align_corners:
        return 2 * number / (extent - 1) - 1
    return (2 * number + 1) / extent - 1


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.affine_grid_generator.default: _affine_grid,
    aten.grid_sampler_2d.default: _grid_sampler,
    aten.grid_sampler_3d.default: _grid_sampler,
    aten.col2im.default: _col2im,
}
