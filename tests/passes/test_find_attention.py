from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

import distillc
from distillc.errors import PassError, PreconditionError
from distillc.frontend.restormer import Restormer
from distillc.network import Network
from distillc.passes.find_attention import FindAttention
from distillc.passes.trace import Trace
from distillc.pipeline import Pipeline, dump_text


def find(module: nn.Module, shape: tuple[int, ...] = (1, 3, 32, 32)) -> Network:
    net = Network(module.eval(), shape[2:], shape[1])
    return Pipeline([Trace(), FindAttention()]).run(net)


class Gate(nn.Module):
    """A softmax over pooled channels: SK fusion's gate, no attention."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x * x.mean((2, 3), keepdim=True).softmax(1)


class PixelAttention(nn.Module):
    """All pixels attend to all pixels, through torch's fused operator."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.flatten(2).transpose(1, 2) for each in self.qkv(x).chunk(3, 1))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Tokens(nn.Module):
    """nn.MultiheadAttention over a token sequence, with a feed-forward part."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.feed = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return x + self.feed(x)


class TokenNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Tokens(8)
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        tokens = self.block(x.flatten(2).transpose(1, 2))
        return self.tail(tokens.transpose(1, 2).reshape(x.shape))


def around(block: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), block, nn.Conv2d(8, 3, 3, padding=1))


def test_restormer(tiny_restormer: nn.Module, golden: Callable[[str, str], None]) -> None:
    net = find(tiny_restormer, (1, 3, 64, 64))
    golden("find_attention_tiny_restormer.txt", dump_text(net))
    assert [block.name for block in net.blocks][:2] == ["encoder_level1.0", "encoder_level2.0"]
    assert net.blocks[0].attention == "encoder_level1.0.attn"


def test_one_block_priced_by_hand(tiny_restormer: nn.Module) -> None:
    block = find(tiny_restormer, (1, 3, 64, 64)).block("encoder_level1.0")
    channels, hidden, pixels = 8, int(8 * 2.66), 64 * 64
    norms, temperature = 4 * channels, 1
    attention = 3 * channels**2 + 27 * channels + channels**2
    feed_forward = 2 * channels * hidden + 18 * hidden + hidden * channels
    assert block.cost.params == norms + temperature + attention + feed_forward
    products = 2 * channels**2  # q k and its product with v, one head
    assert block.cost.macs == (attention + products + feed_forward) * pixels
    assert block.attention_cost.macs == (attention + products) * pixels


def test_full_restormer_has_44_channel_blocks() -> None:
    net = find(Restormer(), (1, 3, 32, 32))
    assert len(net.blocks) == 44
    assert {block.kind for block in net.blocks} == {"channel"}


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


def test_global_attention_through_the_fused_operator() -> None:
    (block,) = find(around(Residual(PixelAttention(8)))).blocks
    assert (block.name, block.attention, block.kind) == ("1", "1.inner", "global")


def test_multihead_attention_over_tokens() -> None:
    (block,) = find(TokenNetwork(), (1, 3, 12, 10)).blocks
    assert (block.name, block.kind, block.shape) == ("block", "global", (1, 120, 8))


def test_attention_without_a_residual_is_named() -> None:
    with pytest.raises(PassError, match="none inside a residual block"):
        find(around(PixelAttention(8)))


def test_a_gate_is_no_attention() -> None:
    with pytest.raises(PassError, match="no attention") as caught:
        find(around(Gate()))
    assert "no product of two activations" in str(caught.value)


def test_a_gate_beside_attention_is_left_out() -> None:
    net = find(around(nn.Sequential(Gate(), Residual(PixelAttention(8)))))
    assert [block.name for block in net.blocks] == ["1.1"]


def test_attention_inside_a_block_inside_a_block() -> None:
    net = find(around(Residual(nn.Sequential(Residual(PixelAttention(8)), Gate()))))
    assert [block.name for block in net.blocks] == ["1.inner.0"]


def test_nothing_changes_the_second_time(tiny_restormer: nn.Module) -> None:
    net = find(tiny_restormer)
    again = FindAttention()(net)
    assert again.blocks == net.blocks
    assert again.log[-1].modified is False


def test_it_needs_a_graph(tiny_checkpoint: object) -> None:
    with pytest.raises(PreconditionError, match="run Trace first"):
        FindAttention()(distillc.load(str(tiny_checkpoint)))
