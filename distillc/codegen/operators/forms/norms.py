"""Norms and moments, in two passes; sums of float16."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distillc.codegen.operators.forms.arithmetic import of_halves

aten = torch.ops.aten


def _var_mean(
    x: Tensor,
    dim: list[int] | None = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """Two passes."""
    axes = list(range(x.dim())) if dim is None else dim
    mean = x.mean(axes, keepdim=True)
    left = max(
        math.prod(x.shape[axis] for axis in axes) - (1 if correction is None else correction), 0
    )
    squares = ((x - mean) * (x - mean)).sum(axes, keepdim=keepdim)
    return squares / left, mean if keepdim else x.mean(axes)


def _normalize(x: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return x with mean 0 and variance 1 along some axes, its means, and what it was scaled by."""
    mean = x.mean(dims, keepdim=True)
    centered = x - mean
    scale = ((centered * centered).mean(dims, keepdim=True) + eps).rsqrt()
    return centered * scale, mean, scale


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scale and shift the channels, axis 1."""
    shape = (-1, *[1] * (x.dim() - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    pixels: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Two passes over each group: TVM subtracts the square of the mean from that of squares."""
    y, mean, scale = _normalize(x.reshape(batch, groups, -1), [2], eps)
    return _affine(y.reshape(x.shape), weight, bias), mean.squeeze(2), scale.squeeze(2)


def _instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for every channel: torch puts images and channels in one axis."""
    dims = [axis for axis in range(x.dim()) if axis != 1]
    y, mean, scale = _normalize(x, dims, eps)
    return _affine(y, weight, bias), mean.flatten(), scale.flatten()


def _layer_norm(
    x: Tensor,
    shape: list[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize float64 in two passes: TVM's own form knows float32 alone."""
    if x.dtype != torch.float64:
        return NotImplemented
    y, mean, scale = _normalize(x, list(range(-len(shape), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, scale


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **{
        each: of_halves(each, form)
        for each, form in (
            (aten.var_mean.correction, _var_mean),
            (aten.var.correction, None),
            (aten.native_group_norm.default, _group_norm),
            (aten.native_layer_norm.default, _layer_norm),
            (aten._native_batch_norm_legit.no_stats, _instance_norm),
            (aten.sum.dim_IntList, None),
            (aten.mean.dim, None),
            (aten._softmax.default, None),
            (aten._log_softmax.default, None),
        )
    },
    aten.mean.default: lambda x, *, dtype=None: (
        x.flatten().mean(0, dtype=dtype) if x.dtype == torch.float16 else NotImplemented
    ),
}
