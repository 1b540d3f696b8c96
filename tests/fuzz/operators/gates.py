"""Gates and small blocks of restoration networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator


@operator("gate")
def glu(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    act = draw.one("glu", "simple", "gelu", "silu", "tanh")

    def run(x: Tensor) -> Tensor:
        if act == "glu":
            return F.glu(x, axis)
        first, second = x.chunk(2, axis)
        if act == "simple":
            return first * second
        return {"gelu": F.gelu, "silu": F.silu, "tanh": torch.tanh}[act](first) * second

    return Layer(described("gate", {"axis": axis, "act": act}), run)


@operator("gate")
def squeeze_excite(draw: Draw, x: Tensor) -> Layer:
    channels, width = x.shape[1], draw.some(1, 4)
    pool, gate = draw.one("adaptive", "mean", "max"), draw.one("sigmoid", "hardsigmoid", "softmax")

    def run(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        if pool == "adaptive":
            y = F.adaptive_avg_pool2d(x, 1)
        else:
            y = x.mean((2, 3), keepdim=True) if pool == "mean" else F.adaptive_max_pool2d(x, 1)
        y = F.conv2d(F.relu(F.conv2d(y, down)), up)
        if gate == "softmax":
            return x * y.softmax(1)
        return x * (y.sigmoid() if gate == "sigmoid" else F.hardsigmoid(y))

    return Layer(
        described("squeeze-excite", {"width": width, "pool": pool, "gate": gate}),
        run,
        draw.weight(width, channels, 1, 1),
        draw.weight(channels, width, 1, 1),
    )


@operator("gate")
def spatial(draw: Draw, x: Tensor) -> Layer:
    """CBAM's: a gate for each pixel, from the mean and the largest channel."""

    def run(x: Tensor, weight: Tensor) -> Tensor:
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)
        return x * torch.sigmoid(F.conv2d(both, weight, padding=3))

    return Layer("spatial gate", run, draw.weight(1, 2, 7, 7))


@operator("gate")
def selective_kernels(draw: Draw, x: Tensor) -> Layer:
    """Two branches, chosen by a softmax over them for each channel."""
    channels = x.shape[1]

    def run(x: Tensor, first: Tensor, second: Tensor, choose: Tensor) -> Tensor:
        a = F.conv2d(x, first, padding=1)
        b = F.conv2d(x, second, padding=2, dilation=2)
        gate = (a + b).mean((2, 3)) @ choose
        gate = gate.view(1, 2, channels, 1, 1).softmax(1)
        return (torch.stack([a, b], 1) * gate).sum(1)

    return Layer(
        "selective kernels",
        run,
        draw.weight(channels, channels, 3, 3),
        draw.weight(channels, channels, 3, 3),
        draw.weight(channels, 2 * channels),
    )


@operator("gate")
def feed_forward(draw: Draw, x: Tensor) -> Layer:
    """Restormer's GDFN."""
    channels, hidden = x.shape[1], draw.some(1, 6)

    def run(x: Tensor, up: Tensor, depthwise: Tensor, down: Tensor) -> Tensor:
        y = F.conv2d(F.conv2d(x, up), depthwise, padding=1, groups=2 * hidden)
        first, second = y.chunk(2, 1)
        return x + F.conv2d(F.gelu(first) * second, down)

    return Layer(
        described("gated feed-forward", {"hidden": hidden}),
        run,
        draw.weight(2 * hidden, channels, 1, 1),
        draw.weight(2 * hidden, 1, 3, 3),
        draw.weight(channels, hidden, 1, 1),
    )


@operator("gate")
def nafblock(draw: Draw, x: Tensor) -> Layer:
    """NAFNet's: simple gate and simplified channel attention."""
    channels = x.shape[1]

    def run(x: Tensor, up: Tensor, depthwise: Tensor, gate: Tensor, beta: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        y = (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + 1e-2).sqrt()
        y = F.conv2d(F.conv2d(y, up), depthwise, padding=1, groups=2 * channels)
        first, second = y.chunk(2, 1)
        y = first * second
        return x + y * F.conv2d(F.adaptive_avg_pool2d(y, 1), gate) * beta

    return Layer(
        "NAF block",
        run,
        draw.weight(2 * channels, channels, 1, 1),
        draw.weight(2 * channels, 1, 3, 3),
        draw.weight(channels, channels, 1, 1),
        draw.weight(1, channels, 1, 1),
    )


@operator("gate")
def mixer(draw: Draw, x: Tensor) -> Layer:
    """gMLP: a product over positions as the gate."""
    tokens = x.flatten(2)
    width = tokens.shape[2]

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = x.flatten(2)
        return y * (F.linear(y.softmax(1), weight) + bias[None, :, None])

    return Layer("token mixer", run, draw.weight(width, width), draw.weight(tokens.shape[1]))
