"""Normalisations, on every axis."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator

EPS = 1e-2
"""Large enough that constant inputs do not make a network ill-conditioned."""


@operator("norm")
def layer_norm(draw: Draw, x: Tensor) -> Layer:
    shape = list(x.shape[-draw.some(1, x.dim() - 1) :]) if x.dim() > 1 else list(x.shape)
    weights = [draw.near_one(*shape), draw.weight(*shape)][: draw.some(0, 2)]
    return Layer(
        described("layer_norm", {"shape": shape, "weights": len(weights)}),
        lambda x, *w: F.layer_norm(x, shape, *w, eps=EPS),
        *weights,
    )


@operator("norm")
def channel_norm(draw: Draw, x: Tensor) -> Layer:
    """Layer normalisation over the channels of an image, in one of the usual ways to write it."""
    way, channels = draw.one("permute", "mean", "tokens"), x.shape[1]

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if way == "permute":
            y = F.layer_norm(x.movedim(1, -1), (channels,), weight, bias, EPS)
            return y.movedim(-1, 1)
        if way == "tokens":
            y = F.layer_norm(x.flatten(2).transpose(1, 2), (channels,), weight, bias, EPS)
            return y.transpose(1, 2).reshape(x.shape)
        ones = (1, channels) + (1,) * (x.dim() - 2)
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + EPS)
        return scaled * weight.view(ones) + bias.view(ones)

    return Layer(
        described("channel norm", {"way": way}), run, draw.near_one(channels), draw.weight(channels)
    )


@operator("norm")
def rms_norm(draw: Draw, x: Tensor) -> Layer:
    axis, biasfree = draw.axis(x), draw.chance(0.4)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        if biasfree:  # Restormer's
            return x / torch.sqrt(x.var(axis, keepdim=True, unbiased=False) + EPS) * weight
        return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + EPS) * weight

    name = "bias-free norm" if biasfree else "rms norm"
    return Layer(described(name, {"axis": axis}), run, draw.near_one(x.shape[-1]))


@operator("norm")
def torch_rms_norm(draw: Draw, x: Tensor) -> Layer:
    shape = list(x.shape[-1:])
    return Layer(
        described("F.rms_norm", {"shape": shape}),
        lambda x, w: F.rms_norm(x, shape, w, EPS),
        draw.near_one(*shape),
    )


@operator("norm")
def group_norm(draw: Draw, x: Tensor) -> Layer:
    channels = x.shape[1]
    groups = draw.divisor(channels)
    weights = [draw.near_one(channels), draw.weight(channels)] if draw.chance(0.7) else []
    return Layer(
        described("group_norm", {"groups": groups}),
        lambda x, *w: F.group_norm(x, groups, *w, eps=EPS),
        *weights,
    )


@operator("norm")
def instance_norm(draw: Draw, x: Tensor) -> Layer:
    return Layer("instance_norm()", lambda x: F.instance_norm(x, eps=EPS))


@operator("norm")
def batch_norm(draw: Draw, x: Tensor) -> Layer:
    channels = x.shape[1]
    return Layer(
        "batch_norm()",
        lambda x, mean, var, w, b: F.batch_norm(x, mean, var.abs() + 0.1, w, b, False, 0.1, EPS),
        draw.weight(channels),
        draw.near_one(channels),
        draw.near_one(channels),
        draw.weight(channels),
    )


@operator("norm")
def normalize(draw: Draw, x: Tensor) -> Layer:
    axis, p = draw.axis(x), draw.one(2.0, 2.0, 1.0, float("inf"))
    return Layer(
        described("F.normalize", {"p": p, "dim": axis}), lambda x: F.normalize(x, p, axis, EPS)
    )


@operator("norm")
def global_response(draw: Draw, x: Tensor) -> Layer:
    """ConvNeXt V2's."""

    def run(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        size = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
        return gamma * (x * size / (size.mean(1, keepdim=True) + EPS)) + beta + x

    ones = (1, x.shape[1], 1, 1)
    return Layer("global response norm", run, draw.near_one(*ones), draw.weight(*ones))


@operator("norm")
def local_response_norm(draw: Draw, x: Tensor) -> Layer:
    size = draw.some(1, 5)
    return Layer(
        described("local_response_norm", {"size": size}),
        lambda x: F.local_response_norm(x, size, 0.01, 0.75, 1.0),
    )


@operator("norm")
def standardise(draw: Draw, x: Tensor) -> Layer:
    """By mean and unbiased deviation of several axes; the statistics are added again."""
    axes = sorted(draw.order(x.dim())[: draw.some(1, x.dim())])

    def run(x: Tensor) -> Tensor:
        std, mean = torch.std_mean(x, axes, keepdim=True, unbiased=False)
        return (x - mean) / (std + 0.1) * mean.sigmoid() + std

    return Layer(described("standardise", {"axes": axes}), run)
