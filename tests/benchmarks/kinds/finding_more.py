"""Networks whose blocks hand on more than an image, or scan already."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.kinds.finding import Attention, Block
from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import WIDTH, Restorer


class Mapped(Attention):
    """Window-free attention of all pixels that also returns its map, times the one it is given."""

    def forward(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        q, k, v = self.heads(x)
        weights = (q.mT @ k / 4).softmax(-1)
        if before is not None:
            weights = weights * before
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
        return self.out((v @ weights.mT).reshape(x.shape)), weights


class MapBlock(Block):
    def __init__(self) -> None:
        super().__init__(Mapped())

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attention(self.norm(x))
        return x + y + self.mlp(x + y)


@kind("features and a map that nobody uses", found="1 global MapBlock")
class Unused(Restorer):
    def __init__(self) -> None:
        super().__init__(MapBlock())


class ProgressiveBlock(MapBlock):
    """Takes and returns features and the map, as `nn.Sequential` hands them on."""

    def forward(self, given: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, before = given
        y, weights = self.attention(self.norm(x), before)
        return x + y + self.mlp(x + y), weights


@kind("progressive attention", found="2 global ProgressiveBlock")
class Progressive(Restorer):
    """The first block is kept: it gives the first map."""

    def __init__(self) -> None:
        super().__init__(*(ProgressiveBlock() for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        given = (self.head(x), None)
        for block in self.body:
            given = block(given)
        restored: Tensor = x + self.tail(given[0])
        return restored


class Layers(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward((x, None))[0]
        return y


@kind("progressive attention within a group", found="1 global Layers")
class Grouped(Restorer):
    def __init__(self) -> None:
        super().__init__(Layers(*(ProgressiveBlock() for _ in range(2))))


class Spatial(nn.Module):
    """Windows of some heads attend, scaled by what the channels gave before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(channels, channels, 1)

    def windows(self, x: Tensor) -> Tensor:
        """(B, L, C, H, W) -> (windows, L, 64, C)."""
        x = x.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))
        return x.permute(0, 3, 5, 1, 4, 6, 2).flatten(0, 2).flatten(2, 3)

    def forward(self, qkv: Tensor, channel: Tensor | None = None) -> Tensor:
        batch, heads, _, height, width = qkv.shape
        q, k, v = self.windows(qkv).chunk(3, -1)
        if channel is not None:
            v = v * self.windows(channel[:, None])
        x = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1) @ v
        x = x.reshape(batch, height // 8, width // 8, heads, 8, 8, -1)
        y: Tensor = self.out(x.permute(0, 3, 6, 1, 4, 2, 5).reshape(batch, -1, height, width))
        return y


class Channels(nn.Module):
    """Channels of the other heads attend, scaled by what the windows gave before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, qkv: Tensor, spatial: Tensor | None = None) -> Tensor:
        q, k, v = qkv.flatten(-2).chunk(3, -2)
        if spatial is not None:
            v = v * spatial.mean(1, keepdim=True).flatten(-2)[:, None]
        x = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT).softmax(-1) @ v
        y: Tensor = self.out(x.unflatten(-1, qkv.shape[-2:]).flatten(1, 2))
        return y


class ReciprocalBlock(nn.Module):
    """Both side by side; the next block is given both results, the network their mix."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(WIDTH, 3 * WIDTH, 1)
        self.spatial = Spatial(WIDTH * 3 // 4)
        self.channels = Channels(WIDTH // 4)
        self.mix = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.norm = nn.GroupNorm(1, WIDTH)

    def forward(
        self, x: Tensor, spatial: Tensor | None, channel: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        qkv = self.qkv(x).unflatten(1, (4, -1))
        spatial, channel = self.spatial(qkv[:, :3], channel), self.channels(qkv[:, 3:], spatial)
        mixed = self.mix(torch.cat([spatial, channel], 1))
        return x + self.norm(mixed), spatial, channel, mixed


@kind("reciprocal attention", found="2 window ReciprocalBlock")
class Reciprocal(Restorer):
    def __init__(self) -> None:
        super().__init__(ReciprocalBlock(), ReciprocalBlock())

    def forward(self, x: Tensor) -> Tensor:
        features, spatial, channel = self.head(x), None, None
        for block in self.body:
            features, spatial, channel, mixed = block(features, spatial, channel)
        restored: Tensor = x + self.tail(features * mixed)
        return restored


class Streams(nn.Module):
    """Two views, each of which attends to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.Conv2d(WIDTH, 2 * WIDTH, 1)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (q, v), (k, w) = (
            layer(each).flatten(2).chunk(2, 1) for layer, each in ((self.left, x), (self.right, y))
        )
        scores = q.mT @ k
        to_left, to_right = w @ scores.softmax(-1).mT, v @ scores.softmax(-2)
        return x + to_left.reshape(x.shape), y + to_right.reshape(y.shape)


@kind("two views that attend to each other", found="2 global Streams")
class Stereo(Restorer):
    def __init__(self) -> None:
        super().__init__(Streams(), Streams())

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.head(x), self.head(x.flip(-1))
        for block in self.body:
            left, right = block(left, right)
        restored: Tensor = x + self.tail(left + right)
        return restored


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence of a Mamba block, pixel by pixel: (B, L, C) to the same."""
    state, outputs = u.new_zeros(len(u), *A.shape), []
    steps = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
    given = torch.einsum("bld,bln,bld->bldn", delta, B, u)
    for t in range(u.shape[1]):
        state = steps[:, t] * state + given[:, t]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, t]))
    return torch.stack(outputs, 1) + u * D


class ScanBlock(nn.Module):
    """x + out(scan), there and back over all pixels."""

    def __init__(self, states: int = 4) -> None:
        super().__init__()
        self.given = nn.Linear(WIDTH, 2 * WIDTH + 2 * states)
        self.rates = nn.Parameter(torch.arange(1, states + 1).float().log().repeat(WIDTH, 1))
        self.skip = nn.Parameter(torch.ones(WIDTH))
        self.out = nn.Linear(WIDTH, WIDTH)

    def scan(self, tokens: Tensor) -> Tensor:
        parts = self.given(tokens).tensor_split([WIDTH, 2 * WIDTH, -self.rates.shape[1]], -1)
        u, delta, B, C = parts
        return selective_scan(u, F.softplus(delta), -self.rates.exp(), B, C, self.skip)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        y = self.scan(tokens) + self.scan(tokens.flip(1)).flip(1)
        return x + self.out(y).mT.reshape(x.shape)


@kind("scans in Python beside attention", found="1 channel Block")
class Scans(Restorer):
    def __init__(self) -> None:
        super().__init__(ScanBlock(), Block(Attention()))
