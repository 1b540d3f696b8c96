"""Networks whose attention is written in other ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import WIDTH, ChannelBlock, Restorer

HEADS = 2


@kind("channel attention", found="2 channel ChannelBlock")
class Channel(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock(), ChannelBlock())


class Attention(nn.Module):
    """out(weigh(q k^T) v) with heads; the axes are those of `heads`."""

    def __init__(self, parts: int = 3) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(WIDTH, parts * WIDTH, 1)
        self.out = nn.Conv2d(WIDTH, WIDTH, 1)
        self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))

    def heads(self, x: Tensor) -> list[Tensor]:
        """Return q, k, v: each (B, heads, C, H W)."""
        parts = self.qkv(x).flatten(2).chunk(3, 1)
        return [each.unflatten(1, (HEADS, -1)) for each in parts]

    def weigh(self, scores: Tensor) -> Tensor:
        return scores.softmax(-1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return self.weigh(scores * self.temperature) @ v

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.mix(*self.heads(x)).reshape(x.shape))
        return y


class Block(nn.Module):
    """x + attention(norm(x)), then x + a feed-forward."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, WIDTH)
        self.attention = attention
        self.mlp = nn.Sequential(
            nn.Conv2d(WIDTH, 2 * WIDTH, 1), nn.GELU(), nn.Conv2d(2 * WIDTH, WIDTH, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.mlp(x)


class One(Restorer):
    """One block around the attention `mixer`."""

    mixer: type[nn.Module]

    def __init__(self) -> None:
        super().__init__(Block(self.mixer()))


class OnePlusSum(Attention):
    def weigh(self, scores: Tensor) -> Tensor:
        weights = scores.exp()
        return weights / (weights.sum(-1, keepdim=True) + 1)


class ByHand(Attention):
    def weigh(self, scores: Tensor) -> Tensor:
        weights = torch.exp(scores - scores.max(dim=-1, keepdim=True)[0])
        return weights / weights.sum(-1, keepdim=True)


class Squared(Attention):
    def weigh(self, scores: Tensor) -> Tensor:
        return F.relu(scores) ** 2


class Sigmoid(Attention):
    def weigh(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores)


class Sparsemax(Attention):
    """The projection of each row onto the simplex, by sorting it."""

    def weigh(self, scores: Tensor) -> Tensor:
        ordered, _ = scores.sort(dim=-1, descending=True)
        ranks = torch.arange(1, scores.shape[-1] + 1, device=scores.device)
        sums = ordered.cumsum(-1) - 1
        kept = (ranks * ordered > sums).sum(-1, keepdim=True)
        return (scores - sums.gather(-1, kept - 1) / kept).clamp(min=0)


@kind("exp over one plus the sum", found="1 channel Block")
class OnePlusSums(One):
    mixer = OnePlusSum


@kind("a softmax by hand", found="1 channel Block")
class ByHands(One):
    mixer = ByHand


@kind("squared ReLU attention", found="1 channel Block")
class Squares(One):
    mixer = Squared


@kind("sigmoid attention", found="1 channel Block")
class Sigmoids(One):
    mixer = Sigmoid


@kind("sparsemax", found="1 channel Block")
class Sparsemaxes(One):
    mixer = Sparsemax


class Elu(Attention):
    """Linear attention with elu + 1 and a normaliser."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        state = torch.einsum("bhdn,bhen->bhde", k, v)
        norm = 1 / (torch.einsum("bhdn,bhd->bhn", q, k.sum(-1)) + 1e-6)
        return torch.einsum("bhdn,bhde,bhn->bhen", q, state, norm)


class Taylor(Attention):
    """Linear attention of (1 + q k) v over the sum of 1 + q k."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = F.normalize(q.mT, dim=-1), F.normalize(k, dim=-2), v.mT
        above = v.sum(-2, keepdim=True) + q @ (k @ v)
        below = torch.full((v.shape[-2], 1), v.shape[-2]) + q @ k.sum(-1, keepdim=True) + 1e-6
        return (above / below * self.temperature).mT


class Padded(Attention):
    """Linear attention of ReLU features whose normaliser is a row of ones under v."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.relu(), k.relu(), F.pad(v, (0, 0, 0, 1), value=1)
        mixed = (v @ k.mT) @ q
        return mixed[:, :, :-1] / (mixed[:, :, -1:] + 1e-6)


@kind("linear attention of ELU features", found="1 linear Block")
class Elus(One):
    mixer = Elu


@kind("Taylor attention", found="1 linear Block")
class Taylors(One):
    mixer = Taylor


@kind("linear attention with a row of ones", found="1 linear Block")
class Padding(One):
    mixer = Padded


class Agents(Attention):
    """A few pooled queries gather from all pixels, and all pixels from them."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        agents = F.adaptive_avg_pool1d(q.flatten(0, 1), 16).unflatten(0, q.shape[:2])
        gathered = (agents.mT @ k).softmax(-1) @ v.mT
        return ((q.mT @ agents).softmax(-1) @ gathered).mT


@kind("agent attention", found="1 global Block")
class Agent(One):
    mixer = Agents


class Queries(nn.Module):
    """Learned queries gather from all pixels, and what they gathered scales the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 8, WIDTH))
        self.kv = nn.Conv2d(WIDTH, 2 * WIDTH, 1)
        self.scale = nn.Linear(8 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).flatten(2).chunk(2, 1)
        gathered = (self.queries @ k).softmax(-1) @ v.mT
        scale: Tensor = self.scale(gathered.flatten(1))
        return x * scale[:, :, None, None]


@kind("learned queries", found="1 global Block")
class LearnedQueries(One):
    mixer = Queries


class Histogram(Attention):
    """Pixels attend within bins of their sorted values, and return to their places."""

    def __init__(self) -> None:
        super().__init__(parts=5)

    def bins(self, q: Tensor, k: Tensor, v: Tensor, frequent: bool) -> Tensor:
        shape = (HEADS, v.shape[1] // HEADS, *((-1, HEADS) if frequent else (HEADS, -1)))

        def binned(x: Tensor) -> Tensor:
            x = x.reshape(len(x), *shape)
            return (x.mT if frequent else x).flatten(2, 3)

        q, k = (F.normalize(binned(each), dim=-1) for each in (q, k))
        weights = (q @ k.mT * self.temperature).exp()
        mixed = weights / (weights.sum(-1, keepdim=True) + 1) @ binned(v)
        mixed = mixed.unflatten(2, (-1, HEADS))
        return (mixed.mT if frequent else mixed).reshape(v.shape)

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        rows, by_row = x[:, :half].sort(-2)
        columns, by_column = rows.sort(-1)
        x = x.clone()
        x[:, :half] = columns
        *pairs, v = self.qkv(x).flatten(2).chunk(5, 1)
        v, order = v.sort(-1)
        q1, k1, q2, k2 = (each.gather(2, order) for each in pairs)
        mixed = [self.bins(q1, k1, v, False), self.bins(q2, k2, v, True)]
        near, far = (each.scatter(2, order, each).view(x.shape) for each in mixed)
        y: Tensor = self.out(near * far)
        back = y[:, :half].scatter(-1, by_column, y[:, :half])
        y[:, :half] = back.scatter(-2, by_row, back)
        return y


@kind("histogram attention", found="1 channel Block")
class Histograms(One):
    mixer = Histogram


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
