"""Convolutions and matrix products with weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator

PADDINGS = ("constant", "reflect", "replicate", "circular")


@operator("convolution", often=8)
def conv2d(draw: Draw, x: Tensor) -> Layer:
    channels = x.shape[1]
    groups = draw.one(1, 1, channels, draw.divisor(channels))
    out = groups * draw.some(1, 4)
    kernel = draw.one((1, 1), (3, 3), (3, 3), (1, 3), (5, 1), (2, 2), (3, 4), (7, 7))
    dilation = (draw.one(1, 1, 1, 2), draw.one(1, 1, 1, 3))
    stride = draw.one((1, 1), (1, 1), (1, 1), (2, 2), (1, 2), (3, 1))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    same = draw.chance(0.75)
    before = [each // 2 if same else draw.some(0, each) for each in reach]
    after = [each - each // 2 if same else draw.some(0, each) for each in reach]
    padding = (before[1], after[1], before[0], after[0])
    mode = draw.one("constant", "constant", *PADDINGS)
    own = mode == "constant" and before == after
    given = {"out": out, "kernel": kernel, "stride": stride, "padding": (mode, *padding)}
    given |= {"dilation": dilation, "groups": groups}

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if own:
            return F.conv2d(x, weight, bias, stride, before, dilation, groups)
        return F.conv2d(F.pad(x, padding, mode), weight, bias, stride, 0, dilation, groups)

    weights = [draw.weight(out, channels // groups, *kernel)]
    weights += [draw.weight(out)] if draw.chance(0.6) else []
    return Layer(described("conv2d", given), run, *weights)


@operator("convolution")
def conv_transpose2d(draw: Draw, x: Tensor) -> Layer:
    channels = x.shape[1]
    groups = draw.one(1, 1, channels, draw.divisor(channels))
    out, kernel = draw.some(1, 3), (draw.some(1, 4), draw.some(1, 4))
    stride = (draw.some(1, 3), draw.some(1, 3))
    padding = (draw.some(0, kernel[0] - 1), draw.some(0, kernel[1] - 1))
    more = (draw.some(0, stride[0] - 1), draw.some(0, stride[1] - 1))
    dilation = draw.one(1, 1, 2)
    given = {"out": out * groups, "kernel": kernel, "stride": stride, "padding": padding}
    given |= {"output_padding": more, "groups": groups, "dilation": dilation}
    return Layer(
        described("conv_transpose2d", given),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride, padding, more, groups, dilation),
        draw.weight(channels, out, *kernel) / channels**0.5,
        draw.weight(out * groups),
    )


@operator("convolution")
def conv1d(draw: Draw, x: Tensor) -> Layer:
    tokens = x.flatten(2)
    channels, out = tokens.shape[1], draw.some(1, 6)
    kernel, stride, dilation = draw.some(1, 5), draw.one(1, 1, 2), draw.one(1, 1, 2)
    padding = dilation * (kernel - 1)
    causal = draw.chance(0.3)
    given = {"out": out, "kernel": kernel, "stride": stride, "dilation": dilation, "causal": causal}

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = F.conv1d(x.flatten(2), weight, bias, stride, padding, dilation)
        return y[..., : x.flatten(2).shape[2]] if causal else y

    return Layer(
        described("conv1d", given), run, draw.weight(out, channels, kernel), draw.weight(out)
    )


@operator("convolution")
def conv3d(draw: Draw, x: Tensor) -> Layer:
    out, kernel = draw.some(1, 3), (draw.some(1, 3), draw.some(1, 3), draw.some(1, 3))
    padding = tuple(each // 2 for each in kernel)
    return Layer(
        described("unsqueeze(1).conv3d", {"out": out, "kernel": kernel}),
        lambda x, w: F.conv3d(x[:, None], w, None, 1, padding).flatten(1, 2),
        draw.weight(out, 1, *kernel),
    )


@operator("convolution", often=2)
def linear(draw: Draw, x: Tensor) -> Layer:
    out = draw.some(1, 9)
    weights = [draw.weight(out, x.shape[-1])] + ([draw.weight(out)] if draw.chance(0.6) else [])
    return Layer(described("linear", {"out": out}), F.linear, *weights)


@operator("convolution")
def matrix(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    weight = draw.weight(draw.some(1, 6), x.shape[axis])
    return Layer(
        described("(w @ x) on axis", {"axis": axis, "w": list(weight.shape)}),
        lambda x, w: torch.tensordot(x, w, dims=([axis], [1])).movedim(-1, axis),
        weight,
    )


@operator("convolution")
def partial(draw: Draw, x: Tensor) -> Layer:
    """Convolve some channels and leave the others (FasterNet)."""
    some = draw.some(1, x.shape[1])

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.cat([F.conv2d(x[:, :some], weight, padding=1), x[:, some:]], 1)

    return Layer(described("partial conv", {"channels": some}), run, draw.weight(some, some, 3, 3))


@operator("convolution")
def shared(draw: Draw, x: Tensor) -> Layer:
    """One convolution used several times (a recurrent network unrolled)."""
    channels, times = x.shape[1], draw.some(2, 3)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        y = x
        for _ in range(times):
            y = x + torch.tanh(F.conv2d(y, weight, padding=1))
        return y

    return Layer(
        described("shared conv", {"times": times}), run, draw.weight(channels, channels, 3, 3)
    )


@operator("convolution")
def standardised(draw: Draw, x: Tensor) -> Layer:
    """A convolution whose weights are normalised: a subgraph of constants."""
    weight = draw.weight(draw.some(1, 6), x.shape[1], 3, 3)

    def run(x: Tensor, weight: Tensor, gain: Tensor) -> Tensor:
        mean = weight.mean((1, 2, 3), keepdim=True)
        variance = weight.var((1, 2, 3), keepdim=True, unbiased=False)
        return F.conv2d(x, gain * (weight - mean) / (variance + 1e-2).sqrt() / 5, padding="same")

    return Layer("weight-standardised conv", run, weight, draw.near_one(weight.shape[0], 1, 1, 1))


@operator("convolution")
def dynamic(draw: Draw, x: Tensor) -> Layer:
    """A depthwise convolution whose weights are made of the image."""
    channels, kernel = x.shape[1], draw.one(1, 3)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        own = torch.tanh(x.mean((2, 3)) @ weight).view(channels, 1, kernel, kernel)
        return F.conv2d(x, own, padding=kernel // 2, groups=channels)

    return Layer("dynamic depthwise conv", run, draw.weight(channels, channels * kernel**2))
