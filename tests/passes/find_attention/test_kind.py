"""Rule 6: which kind a block is."""

from __future__ import annotations

import warnings

import pytest

from distillc.frontend.restormer import Restormer
from tests.passes.find_attention.modules import PixelAttention, Residual, TokenNetwork, around, find


def test_global_attention_through_the_fused_operator() -> None:
    (block,) = find(around(Residual(PixelAttention(8)))).blocks
    assert (block.name, block.attention, block.kind) == ("1", "1.inner", "global")


def test_multihead_attention_over_tokens() -> None:
    (block,) = find(TokenNetwork(), (1, 3, 12, 10)).blocks
    assert (block.name, block.kind, block.shape) == ("block", "global", (1, 120, 8))


def test_windows_of_swinir() -> None:
    from spandrel.architectures.SwinIR import SwinIR

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = SwinIR(
            img_size=32, embed_dim=12, depths=[2], num_heads=[2], window_size=8, upscale=1,
            upsampler="",
        )  # fmt: skip
        net = find(module)
    assert [block.kind for block in net.blocks] == ["window", "window"]
    assert net.blocks[0].shape == (1, 1024, 12)
    assert net.blocks[0].name == "layers.0.residual_group.blocks.0"


def test_full_restormer_has_44_channel_blocks() -> None:
    net = find(Restormer(), (1, 3, 32, 32))
    assert len(net.blocks) == 44
    assert {block.kind for block in net.blocks} == {"channel"}


@pytest.mark.parametrize(("dim", "size"), [(8, (64, 64)), (16, (32, 32)), (48, (48, 64))])
def test_as_many_pixels_as_channels_in_a_head(dim: int, size: tuple[int, int]) -> None:
    heads = (1, 1, 1, 1) if dim == 8 else (1, 2, 4, 8)
    module = Restormer(dim=dim, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=heads)
    latent = find(module, (1, 3, *size)).block("latent.0")
    assert latent.shape[2] * latent.shape[3] == latent.shape[1] // heads[-1]
    assert latent.kind == "channel"
