"""Rule 5: what of a block is its attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.passes.find_attention.modules import PixelAttention, Residual, around, find


class Halves(nn.Module):
    """Two attentions side by side, each on half of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([PixelAttention(4), PixelAttention(4)])

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return torch.cat((self.branches[0](first), self.branches[1](second)), 1)


def test_the_attention_of_a_block_is_all_of_it() -> None:
    (block,) = find(around(Residual(Halves()))).blocks
    assert (block.name, block.attention) == ("1", "1.inner")
    assert block.attention_shape == block.shape == (1, 8, 32, 32)


class Parallel(nn.Module):
    """Attention beside a convolution, as in DAT, RGT and GRL."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention, self.conv = attention, nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x) + self.conv(x)


def test_attention_in_one_of_two_branches() -> None:
    """A branch that is a module of its own is the attention, else both branches together."""
    (block,) = find(around(Residual(Parallel(PixelAttention(8))))).blocks
    assert (block.name, block.attention) == ("1", "1.inner.attention")

    class Inline(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.conv = nn.Conv2d(8, 24, 1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (each.flatten(2).transpose(1, 2) for each in self.qkv(x).chunk(3, 1))
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            return y + self.conv(x)

    (block,) = find(around(Residual(Inline()))).blocks
    assert (block.name, block.attention) == ("1", "1.inner")


def test_a_residual_is_no_part_of_the_attention() -> None:
    """A surrogate of the attention starts as zero: what is added must stay beside it."""
    (block,) = find(around(Residual(Parallel(Residual(PixelAttention(8)))))).blocks
    assert (block.name, block.attention) == ("1.inner.attention", "1.inner.attention.inner")

    class Two(Parallel):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.attention(x) + PixelAttention.forward(self.conv, x)

    two = Two(PixelAttention(8))
    two.conv = PixelAttention(8)
    (block,) = find(around(two)).blocks
    assert (block.name, block.attention) == ("1", "1")
