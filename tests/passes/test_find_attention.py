from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
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


def test_one_block_counted_by_hand(tiny_restormer: nn.Module) -> None:
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


def test_attention_without_a_residual_is_a_block_of_its_own() -> None:
    (block,) = find(around(PixelAttention(8))).blocks
    assert (block.name, block.attention) == ("1", "1")


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


@pytest.mark.parametrize(("dim", "size"), [(8, (64, 64)), (16, (32, 32)), (48, (48, 64))])
def test_as_many_pixels_as_channels_in_a_head(dim: int, size: tuple[int, int]) -> None:
    heads = (1, 1, 1, 1) if dim == 8 else (1, 2, 4, 8)
    module = Restormer(dim=dim, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=heads)
    latent = find(module, (1, 3, *size)).block("latent.0")
    assert latent.shape[2] * latent.shape[3] == latent.shape[1] // heads[-1]
    assert latent.kind == "channel"


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


def test_several_attentions_in_one_block_are_one_block() -> None:
    inner = nn.Sequential(Residual(PixelAttention(8)), PixelAttention(8))
    (block,) = find(around(Residual(inner))).blocks
    assert (block.name, block.attention) == ("1", "1.inner")


def test_what_maps_image_to_image_is_no_block() -> None:
    (block,) = find(nn.Sequential(nn.Identity(), Residual(around(PixelAttention(8))))).blocks
    assert block.name == "1.inner.1"


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


class Neighbourhood(nn.Module):
    """Every pixel attends to those around it: sums of products of elements (Ramachandran et al.,
    Stand-Alone Self-Attention, section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 1)
        k, v = (F.unfold(each, 3, padding=1).view(1, -1, 9, *x.shape[2:]) for each in (k, v))
        weights = ((q.unsqueeze(2) * k).sum(1, keepdim=True) * 0.3).softmax(2)
        return (weights * v).sum(2)


class CrissCross(nn.Module):
    """One softmax over a row and a column (Huang et al., CCNet, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 1)
        column = torch.einsum("bchw,bcgw->bhwg", q, k)
        row = torch.einsum("bchw,bchg->bhwg", q, k)
        column, row = torch.cat([column, row], -1).softmax(-1).chunk(2, -1)
        return torch.einsum("bhwg,bcgw->bchw", column, v) + torch.einsum("bhwg,bchg->bchw", row, v)


class TalkingHeads(nn.Module):
    """Heads are mixed before and after the softmax (Shazeer et al., Talking-Heads Attention)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.before = nn.Linear(2, 2)
        self.after = nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(x).permute(0, 2, 3, 1).reshape(32, 32, 3, 2, -1)
        q, k, v = rows.permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.before((q @ k.mT).movedim(1, -1)).movedim(-1, 1)
        mixed = self.after(scores.softmax(-1)) @ v
        return mixed.transpose(1, 2).reshape(1, 32, 32, -1).permute(0, 3, 1, 2)


class Strongest(nn.Module):
    """Each pixel of a row attends to the four that fit best."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).permute(0, 2, 3, 1).squeeze(0).chunk(3, -1)
        scores, places = (q @ k.mT).topk(4, -1)
        values = torch.gather(
            v.unsqueeze(1).expand(-1, 32, -1, -1), 2, places.unsqueeze(-1).expand(-1, -1, -1, 8)
        )
        return (scores.softmax(-1).unsqueeze(-1) * values).sum(2).permute(2, 0, 1).unsqueeze(0)


@pytest.mark.parametrize("attention", [Neighbourhood, CrissCross, TalkingHeads, Strongest])
def test_attention_to_some_pixels(attention: type[nn.Module]) -> None:
    (block,) = find(around(Residual(attention(8)))).blocks
    assert (block.name, block.attention, block.kind) == ("1", "1.inner", "window")


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


def test_an_addition_in_place_is_a_residual_too() -> None:
    class InPlace(Residual):
        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            y += x
            return y

    (block,) = find(around(InPlace(PixelAttention(8)))).blocks
    assert block.name == "1"


def test_every_softmax_that_was_refused_is_accounted_for() -> None:
    with pytest.raises(PassError) as caught:
        find(around(nn.Sequential(Gate(), Gate())))
    assert "saw 2 softmaxes; 2 refused" in str(caught.value)
    assert "1.0, 1.1" in str(caught.value)
    with pytest.raises(PassError, match="saw 0 softmaxes"):
        find(around(nn.Identity()))


def test_nothing_changes_the_second_time(tiny_restormer: nn.Module) -> None:
    net = find(tiny_restormer)
    again = FindAttention()(net)
    assert again.blocks == net.blocks
    assert again.log[-1].modified is False


def test_it_needs_a_graph(tiny_checkpoint: object) -> None:
    with pytest.raises(PreconditionError, match="run Trace first"):
        FindAttention()(distillc.load(str(tiny_checkpoint)))
