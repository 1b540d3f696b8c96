"""Parts that several kinds share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 16


class ChannelBlock(nn.Module):
    """x + out(softmax(q k^T) v) over the channels, then x + a feed-forward."""

    def __init__(self, channels: int = WIDTH) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        x = x + self.out((weights.softmax(-1) @ v).view_as(x))
        return x + self.mlp(x)


class Restorer(nn.Module):
    """x + tail(body(head(x))).

    Args:
        body: Blocks, (B, WIDTH, H, W) to the same.
        given: Channels of the image.
    """

    def __init__(self, *body: nn.Module, given: int = 3) -> None:
        super().__init__()
        self.head = nn.Conv2d(given, WIDTH, 3, padding=1)
        self.body = nn.Sequential(*body)
        self.tail = nn.Conv2d(WIDTH, given, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        restored: Tensor = x + self.tail(self.body(self.head(x)))
        return restored
