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
