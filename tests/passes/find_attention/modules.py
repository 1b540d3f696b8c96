"""Modules that tests of FindAttention are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillc.network import Network
from distillc.passes.find_attention import FindAttention
from distillc.passes.trace import Trace
from distillc.pipeline import Pipeline


def find(module: nn.Module, shape: tuple[int, ...] = (1, 3, 32, 32)) -> Network:
    net = Network(module.eval(), shape[2:], shape[1])
    return Pipeline([Trace(), FindAttention()]).run(net)


def around(block: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), block, nn.Conv2d(8, 3, 3, padding=1))


class Gate(nn.Module):
    """A softmax over pooled channels: SK fusion's gate, no attention."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x * x.mean((2, 3), keepdim=True).softmax(1)


class PixelAttention(nn.Module):
    """All pixels attend to all pixels, through torch's fused operator."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.flatten(2).transpose(1, 2) for each in self.qkv(x).chunk(3, 1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Tokens(nn.Module):
    """nn.MultiheadAttention over a token sequence, with a feed-forward part."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.feed = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.feed(x)


class TokenNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Tokens(8)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        tokens = self.block(x.flatten(2).transpose(1, 2))
        return self.tail(tokens.transpose(1, 2).reshape(x.shape))
