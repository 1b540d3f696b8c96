"""Networks that are called in other ways, or return other things."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import WIDTH, ChannelBlock, Restorer


@kind("several images out", found="1 channel ChannelBlock", options={"output": 0})
class SeveralImages(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock())

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        restored = super().forward(x)
        return [restored, restored + x]


@kind("a dictionary out", found="1 channel ChannelBlock")
class Dictionary(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock())

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"restored": super().forward(x), "mean": x.mean((1, 2, 3))}


class WindowBlock(nn.Module):
    """x + out(softmax(q k^T) v) over the pixels of windows, then x + a feed-forward.

    Args:
        edge: Of the windows, pixels.
    """

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.GELU(), nn.Conv2d(2 * WIDTH, WIDTH, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.edge
        windows = x.view(b, c, h // s, s, w // s, s).permute(0, 2, 4, 3, 5, 1)
        q, k, v = self.qkv(self.norm(windows.reshape(-1, s * s, c))).chunk(3, -1)
        mixed = self.out((q @ k.transpose(1, 2) * c**-0.5).softmax(-1) @ v)
        mixed = mixed.view(b, h // s, w // s, s, s, c).permute(0, 5, 1, 3, 2, 4)
        x = x + mixed.reshape(b, c, h, w)
        return x + self.mlp(x)


@kind("windows of seven", found="2 window WindowBlock", shape=(1, 3, 28, 28))
class WindowsOfSeven(Restorer):
    def __init__(self) -> None:
        super().__init__(WindowBlock(7), WindowBlock(7))


@kind("windows of six at half the size", found="1 window WindowBlock", shape=(1, 3, 24, 24))
class SmallerWindows(Restorer):
    def __init__(self) -> None:
        down = nn.Conv2d(WIDTH, WIDTH, 2, 2)
        super().__init__(down, WindowBlock(6), nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2))


class TokenBlock(nn.Module):
    """Windows of 4 x 4 among tokens (B, H * W, C) of a square."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, length, c = x.shape
        edge = int(math.sqrt(length))
        windows = self.norm1(x).view(b, edge // 4, 4, edge // 4, 4, c).transpose(2, 3)
        qkv = self.qkv(windows.reshape(-1, 16, c)).view(-1, 16, 3, 2, c // 2)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = ((q @ k.transpose(-2, -1)) * (c // 2) ** -0.5).softmax(-1) @ v
        mixed = self.proj(mixed.transpose(1, 2).reshape(-1, 16, c))
        mixed = mixed.view(b, edge // 4, edge // 4, 4, 4, c).transpose(2, 3)
        x = x + mixed.reshape(b, length, c)
        return x + self.mlp(self.norm2(x))


@kind("only squares", found="1 window TokenBlock")
class Squares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.block = TokenBlock()
        self.last = nn.Conv2d(WIDTH, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(self.first(x).flatten(2).transpose(1, 2))
        edge = int(math.sqrt(y.shape[1]))
        restored: Tensor = x + self.last(y.transpose(1, 2).view(x.shape[0], WIDTH, edge, edge))
        return restored


@kind("a table of positions for one size", found="1 global TransformerEncoderLayer")
class OneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.places = nn.Parameter(torch.randn(1, 64, WIDTH) * 0.02)
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, 0.0, batch_first=True)
        self.last = nn.Sequential(nn.Conv2d(WIDTH, 48, 1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x)
        y = self.block(tokens.flatten(2).transpose(1, 2) + self.places)
        restored: Tensor = x + self.last(y.transpose(1, 2).reshape(tokens.shape))
        return restored


@kind(
    "a level and a prompt in",
    found="1 channel ChannelBlock",
    options={"inputs": {"sigma": 0.1, "prompt": [0.5] * WIDTH}},
)
class LevelAndPrompt(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock())
        self.dense = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, sigma: Tensor, prompt: Tensor) -> Tensor:  # type: ignore[override]
        level = sigma.view(-1, 1, 1, 1).expand(-1, 3, *x.shape[2:])
        features = self.head(x * (1 - level)) + self.dense(prompt)[:, :, None, None]
        restored: Tensor = x + self.tail(self.body(features))
        return restored


@kind("packed Bayer planes to RGB", found="1 channel ChannelBlock", shape=(1, 4, 32, 32))
class BayerPlanes(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock(), given=4)
        self.tail = nn.Sequential(nn.Conv2d(WIDTH, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        rendered: Tensor = self.tail(self.body(self.head(x)))
        return rendered


@kind("two views of a dual-pixel sensor", found="1 channel ChannelBlock", shape=(1, 6, 32, 32))
class TwoViews(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock())

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        restored: Tensor = self.tail(self.body(self.head(left) + self.head(right)))
        return (left + right) / 2 + restored
