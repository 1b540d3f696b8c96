"""Rule 2: what a block takes and returns."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.errors import PassError
from tests.passes.find_attention.modules import PixelAttention, Residual, TokenNetwork, around, find


class Halving(nn.Module):
    """Attention whose output is smaller than its input."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = PixelAttention(8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.flatten(2).mT for each in self.attention.qkv(x).chunk(3, 1))
        y = F.scaled_dot_product_attention(q[:, ::2], k, v).mT
        return y.unflatten(2, (x.shape[2] // 2, x.shape[3])).repeat_interleave(2, 2)[:, :4]


def test_attention_in_nothing_that_could_be_replaced_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), Halving(), nn.Conv2d(4, 3, 1))
    with pytest.raises(PassError, match=r"1 maps \(1, 8, 32, 32\) to \(1, 4, 32, 32\)"):
        find(network)


class LastChannels(nn.Module):
    """Works on (B, H, W, C), as SCUNet's window attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(1, 2).chunk(3, 2)
        return x + ((q @ k.transpose(1, 2)).softmax(-1) @ v).view(x.shape)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = LastChannels()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tokens(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_a_module_with_channels_last() -> None:
    (block,) = find(around(Branches()), (1, 3, 8, 8)).blocks  # 8 channels, 8 rows
    # No module holds the attention and nothing of the residual, so the block stands for it.
    assert (block.name, block.attention, block.kind) == ("1.tokens", "1.tokens", "global")
    assert block.layout == block.attention_layout == "channels_last"
    assert block.attention_shape == (1, 8, 8, 8)


def test_tokens_before_the_batch() -> None:
    class First(TokenNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.TransformerEncoderLayer(8, 2, 16)

        def forward(self, image: Tensor) -> Tensor:
            tokens = self.block(self.head(image).flatten(2).permute(2, 0, 1))
            return self.tail(tokens.permute(1, 2, 0).unflatten(2, image.shape[2:]))

    (block,) = find(First(), (1, 3, 12, 10)).blocks
    assert (block.name, block.layout, block.shape) == ("block", "tokens_first", (120, 1, 8))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = PixelAttention(8)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return x + self.attention(x * guide)


class Guided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.guide = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.block = TwoInputs()
        self.tail = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.tail(self.block(self.head(image), self.guide(image)))


def test_a_block_with_two_inputs_adds_to_one_of_them() -> None:
    (block,) = find(Guided()).blocks
    assert (block.name, block.attention, block.shape) == (
        "block",
        "block.attention",
        (1, 8, 32, 32),
    )


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        q = self.q(x).flatten(2)
        k, v = self.kv(guide).flatten(2).chunk(2, 1)
        return ((q @ k.mT).softmax(-1) @ v).reshape(x.shape)


class AddsInside(nn.Module):
    """Adds to its first input, or to its second, and ends with something else."""

    def __init__(self, second: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 8)
        self.attention = CrossAttention()
        self.last = nn.Conv2d(8, 8, 1)
        self.second = second

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        main, other = (guide, x) if self.second else (x, guide)
        return self.last(main + self.attention(self.norm(main), self.norm(other)))


@pytest.mark.parametrize("second", [False, True])
def test_a_block_with_two_inputs_that_adds_inside(second: bool) -> None:
    net = Guided()
    net.block = AddsInside(second)  # type: ignore[assignment]
    (block,) = find(net).blocks
    assert (block.name, block.kind, block.shape) == ("block", "channel", (1, 8, 32, 32))


def test_a_block_called_twice_is_one_block_that_costs_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.tail = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
            self.block = Residual(PixelAttention(8))

        def forward(self, image: Tensor) -> Tensor:
            return self.tail(self.block(self.block(self.head(image))))

    (twice,) = find(Twice()).blocks
    (once,) = find(around(Residual(PixelAttention(8)))).blocks
    assert twice.name == "block"
    assert twice.cost.params == once.cost.params
    assert twice.cost.macs == 2 * once.cost.macs
