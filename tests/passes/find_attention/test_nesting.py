"""Rules 3 and 4: which of the modules around an attention is its block."""

from __future__ import annotations

from torch import Tensor, nn

from tests.passes.find_attention.modules import Gate, PixelAttention, Residual, around, find


def test_attention_without_a_residual_is_a_block_of_its_own() -> None:
    (block,) = find(around(PixelAttention(8))).blocks
    assert (block.name, block.attention) == ("1", "1")


def test_an_addition_in_place_is_a_residual_too() -> None:
    class InPlace(Residual):
        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            y += x
            return y

    (block,) = find(around(InPlace(PixelAttention(8)))).blocks
    assert block.name == "1"


def test_attention_inside_a_block_inside_a_block() -> None:
    net = find(around(Residual(nn.Sequential(Residual(PixelAttention(8)), Gate()))))
    assert [block.name for block in net.blocks] == ["1.inner.0"]


def test_several_attentions_in_one_block_are_one_block() -> None:
    inner = nn.Sequential(Residual(PixelAttention(8)), PixelAttention(8))
    (block,) = find(around(Residual(inner))).blocks
    assert (block.name, block.attention) == ("1", "1.inner")


def test_what_maps_image_to_image_is_no_block() -> None:
    (block,) = find(nn.Sequential(nn.Identity(), Residual(around(PixelAttention(8))))).blocks
    assert block.name == "1.inner.1"
