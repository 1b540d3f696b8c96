"""Rule 1: what an attention is, and which softmaxes are none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillc.errors import PassError
from tests.passes.find_attention.modules import Gate, PixelAttention, Residual, around, find


def test_a_gate_is_no_attention() -> None:
    with pytest.raises(PassError, match="no attention") as caught:
        find(around(Gate()))
    assert "no product of two activations" in str(caught.value)


def test_a_gate_beside_attention_is_left_out() -> None:
    net = find(around(nn.Sequential(Gate(), Residual(PixelAttention(8)))))
    assert [block.name for block in net.blocks] == ["1.1"]


class Pooling(nn.Module):
    """A context vector of softmax weights and pixels: no attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(x).flatten(2).softmax(2)
        return x + (x.flatten(2) @ weights.mT).unsqueeze(3)


def test_pooling_is_no_attention() -> None:
    with pytest.raises(PassError, match="its input is no product of two activations"):
        find(around(Pooling(8)))


class SelectiveKernels(nn.Module):
    """Branches weighed by a softmax over what is pooled from their product: no attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.weigh = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.stack(self.branches(x).chunk(2, 1), 1)
        pooled = (branches[:, 0] * branches[:, 1]).sum((2, 3), keepdim=True)
        weights = torch.stack(self.weigh(pooled).chunk(2, 1), 1).softmax(1)
        return x + (weights * branches).sum(1)


def test_weighed_branches_are_no_attention() -> None:
    with pytest.raises(PassError, match="its input is no product of two activations"):
        find(around(SelectiveKernels(8)))


class LinearAttention(nn.Module):
    """q (kT v): over all pixels where `heads` attend, keys normalised or not."""

    def __init__(self, channels: int, softmax: bool) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.flatten(2).mT for each in self.qkv(x).chunk(3, 1))
        k = k.softmax(1) if self.softmax else k.relu()
        return ((q * 0.5) @ (k.mT @ v)).mT.reshape(x.shape)


@pytest.mark.parametrize("softmax", [True, False])
def test_linear_attention(softmax: bool) -> None:
    net = find(around(Residual(LinearAttention(8, softmax))))
    (block,) = net.blocks
    assert (block.name, block.attention, block.kind) == ("1", "1.inner", "linear")
    assert not [note for note in net.log[-1].notes if "softmax" in note]


def test_linear_attention_after_linear_attention() -> None:
    """A softmax over keys is none over what the block before made, though their shapes agree."""
    blocks = nn.Sequential(*(Residual(LinearAttention(8, True)) for _ in range(3)))
    found = find(around(blocks)).blocks
    assert [each.name for each in found] == ["1.0", "1.1", "1.2"]
    assert {each.kind for each in found} == {"linear"}


class FrequencyAttention(nn.Module):
    """The product of two spectra, and a gate."""

    def __init__(self, channels: int, own: bool) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.spectrum = nn.Parameter(torch.rand(channels, 32, 17))
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 1)
        other = torch.fft.rfft2(k) if self.own else self.spectrum
        return v * torch.fft.irfft2(torch.fft.rfft2(q) * other, s=x.shape[2:])


def test_attention_in_frequencies() -> None:
    (block,) = find(around(Residual(FrequencyAttention(8, own=True)))).blocks
    assert (block.name, block.attention, block.kind) == ("1", "1.inner", "frequency")


def test_a_filter_in_frequencies_is_no_attention() -> None:
    with pytest.raises(PassError, match="no attention"):
        find(around(Residual(FrequencyAttention(8, own=False))))


class LearnedQueries(nn.Module):
    """Queries that are weights gather from all pixels, and all pixels from them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 5, channels))
        self.gather = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.spread = nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).mT
        gathered, _ = self.gather(self.queries.expand(1, -1, -1), pixels, pixels)
        return self.spread(pixels, gathered, gathered)[0].mT.reshape(x.shape)


def test_queries_that_are_weights() -> None:
    (block,) = find(around(Residual(LearnedQueries(8)))).blocks
    assert (block.name, block.attention) == ("1", "1.inner")


def test_every_softmax_that_was_refused_is_accounted_for() -> None:
    with pytest.raises(PassError) as caught:
        find(around(nn.Sequential(Gate(), Gate())))
    assert "saw 2 softmaxes; 2 refused" in str(caught.value)
    assert "1.0, 1.1" in str(caught.value)
    with pytest.raises(PassError, match="saw 0 softmaxes"):
        find(around(nn.Identity()))
