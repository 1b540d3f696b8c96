from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.attention_graph import AttentionSite, find_sites
from distillc.frontend.graph import activations, shape

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


class Attends(nn.Module):
    """q, k, v (B, 16, 6) from an image (B, 3, 4, 4), mixed by a function."""

    def __init__(self, mix: Mix) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(3, 18, 1)
        self.latent = nn.Parameter(torch.zeros(1, 16, 6))
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2).chunk(3, 2)
        return self.mix(q, k, v)


def export(module: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(module.eval(), (torch.zeros(1, 3, 4, 4),))


def sites(module: nn.Module) -> tuple[list[AttentionSite], list[str]]:
    program = export(module)
    found, refused = find_sites(program, activations(program))
    return found, [reason for _, reason in refused]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(1, 2)).softmax(-1) @ v


def scaled_and_masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(1, 2)).mul_(0.4) + torch.ones(16, 16)
    scores = scores.masked_fill_(torch.eye(16) > 0, -1e9).view(1, 1, 16, 16)
    return F.dropout(scores.softmax(-1), 0.1).squeeze(1) @ v


def top_half(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(1, 2)
    kept = scores >= scores.topk(8, -1).values[..., -1:]
    return torch.where(kept, scores, torch.full_like(scores, -1e9)).softmax(-1) @ v


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("b i j, b j d -> b i d", torch.einsum("bid,bjd->bij", q, k).softmax(-1), v)


def by_baddbmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.baddbmm(torch.zeros(1, 16, 16), q, k.transpose(1, 2), beta=0, alpha=0.4)
    return torch.bmm(scores.softmax(-1), v)


def in_half_precision(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(1, 2)).double().softmax(-1).to(v.dtype) @ v


def one_plus_sum(scores: Tensor) -> Tensor:
    weights = scores.exp()
    return weights / (weights.sum(-1, keepdim=True) + 1)


def by_hand(scores: Tensor) -> Tensor:
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def sparsemax(scores: Tensor) -> Tensor:
    ordered = scores.sort(dim=-1, descending=True)[0]
    ranks = torch.arange(1, 17)
    sums = ordered.cumsum(-1) - 1
    kept = (ranks * ordered > sums).sum(-1, keepdim=True)
    return (scores - sums.gather(-1, kept - 1) / kept).clamp(min=0)


@pytest.mark.parametrize(
    "weigh",
    [
        one_plus_sum,
        by_hand,
        sparsemax,
        torch.relu,
        torch.sigmoid,
        lambda scores: F.relu(scores) ** 2,
        lambda scores: F.softplus(scores) / F.softplus(scores).sum(-1, keepdim=True),
        lambda scores: (scores - scores.logsumexp(-1, keepdim=True)).exp(),
        lambda scores: F.log_softmax(scores, -1).exp(),
        lambda scores: F.normalize(scores, p=1, dim=-1),
        lambda scores: 1 + scores + scores * scores / 2,
        lambda scores: F.relu(scores).softmax(-1),
        lambda scores: scores.softmax(-1) * 0.5 + F.relu(scores) ** 2 * 0.5,
        lambda scores: F.layer_norm(scores, (16,)).softmax(-1).square(),
    ],
)
def test_other_functions_of_the_scores(weigh: Callable[[Tensor], Tensor]) -> None:
    (site,), refused = sites(Attends(lambda q, k, v: weigh(q @ k.mT) @ v))
    assert (site.form, site.matrix) == ("softmax", (1, 16, 16))
    assert not refused


def test_scores_that_are_only_scaled_and_masked_are_linear() -> None:
    (site,), _ = sites(Attends(lambda q, k, v: (q @ k.mT / 16 * torch.ones(16, 16).tril()) @ v))
    assert site.form == "linear"


def test_distances_are_scores() -> None:
    (site,), _ = sites(Attends(lambda q, k, v: (-torch.cdist(q, k)).softmax(-1) @ v))
    assert site.matrix == (1, 16, 16)
    assert shape(site.contracted[0]) == (1, 16, 6)


def test_weights_that_are_used_twice() -> None:
    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.mT).softmax(-1)
        return weights @ v + (weights * 2) @ v.relu()

    first, second = sites(Attends(mix))[0]
    assert len(first.nodes) == 3
    assert len(second.nodes) == 1
    assert second.matrix == first.matrix


def test_a_product_that_is_squashed_and_multiplied_by_elements_is_a_gate() -> None:
    found, _ = sites(Attends(lambda q, k, v: torch.sigmoid(q @ k.mT)[..., :6] * v))
    assert not found


@pytest.mark.parametrize(
    "mix",
    [
        plain,
        scaled_and_masked,
        top_half,
        by_einsum,
        by_baddbmm,
        in_half_precision,
        F.scaled_dot_product_attention,
    ],
)
def test_a_product_normalised_and_multiplied_is_attention(mix: Mix) -> None:
    (site,), refused = sites(Attends(mix))
    assert not refused
    assert site.matrix[-2:] == (16, 16)
    operand, axis = site.contracted
    assert shape(operand)[axis] == 6


def test_channels_that_attend_to_channels() -> None:
    (site,), _ = sites(Attends(lambda q, k, v: (q.transpose(1, 2) @ k).softmax(-1) @ v.mT))
    assert site.matrix == (1, 6, 6)
    operand, axis = site.contracted
    assert shape(operand)[axis] == 16


def test_the_summed_axis_of_an_einsum_need_not_be_the_last() -> None:
    (site,), _ = sites(
        Attends(lambda q, k, v: torch.einsum("bic,bid->bcd", q, k).softmax(-1) @ v.mT)
    )
    operand, axis = site.contracted
    assert (axis, shape(operand)[axis]) == (-2, 16)


@pytest.mark.parametrize(
    "mix",
    [
        lambda q, k, v: q @ (k.softmax(1).transpose(1, 2) @ v),
        lambda q, k, v: (q.softmax(-1) * 0.4) @ (k.softmax(1).mT @ v),
        lambda q, k, v: torch.einsum("bid,bde->bie", q, torch.einsum("bjd,bje->bde", k, v)),
    ],
)
def test_linear_attention(mix: Mix) -> None:
    found, refused = sites(Attends(mix))
    assert [(site.form, site.matrix) for site in found] == [("linear", (1, 6, 6))]
    assert not refused


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        (lambda q, k, v: q.softmax(-1) * v, "no product of two activations"),
        (lambda q, k, v: q.softmax(1).transpose(1, 2) @ v, "no product of two activations"),
        (lambda q, k, v: (q @ k.transpose(1, 2)).softmax(-1).sum(-1), "not multiplied with"),
    ],
)  # fmt: skip
def test_other_softmaxes_are_refused(mix: Mix, reason: str) -> None:
    found, refused = sites(Attends(mix))
    assert not found
    assert [reason in each for each in refused] == [True]


def test_a_softmax_over_a_product_with_a_weight_is_a_gate() -> None:
    class Gate(Attends):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.qkv(x).flatten(2).transpose(1, 2)[..., :6]
            return (tokens @ self.latent.transpose(1, 2)).softmax(-1) @ tokens

    found, refused = sites(Gate(plain))
    assert not found
    assert "no product of two activations" in refused[0]


def test_learned_queries_gather_from_positions() -> None:
    class Gather(Attends):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.qkv(x).flatten(2).transpose(1, 2)[..., :6]
            return (self.latent @ tokens.mT).softmax(-1) @ tokens

    (site,), refused = sites(Gather(plain))
    assert site.matrix == (1, 16, 16)
    assert not refused
