"""SynthesizeSurrogates and ApplyReplacements: what may stand in, and what does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from distillc.errors import PassError, PreconditionError, UsageError
from distillc.frontend.trace import export_program, trace
from distillc.network import KEEP, Block, Cost, Layout, Network
from distillc.passes.apply_replacements import ApplyReplacements
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.find_attention import FindAttention
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.trace import Trace
from distillc.pipeline import Context, Pass, Pipeline
from distillc.surrogates.families.conv import ConvSurrogate
from distillc.surrogates.families.mamba import MambaSurrogate

LABELS = ("conv", "mamba:state=2", "conv@attention", "mamba:state=2@attention")


@pytest.fixture
def found(tiny_restormer: nn.Module) -> Network:
    return Pipeline([Trace(), FindAttention()]).run(Network(tiny_restormer, (32, 32), multiple=8))


def weights(net: Network, block: str, label: str) -> list[torch.Tensor]:
    return list(net.surrogate(block, label).module.state_dict().values())


def test_every_block_gets_every_candidate(found: Network) -> None:
    net = SynthesizeSurrogates(LABELS)(found)
    assert set(net.candidates) == {block.name for block in found.blocks}
    for block in net.blocks:
        candidates = net.candidates[block.name]
        assert tuple(each.label for each in candidates) == LABELS
        assert all(0 < each.cost.macs < block.cost.macs for each in candidates)


def test_candidates_do_not_depend_on_each_other(found: Network) -> None:
    alone = SynthesizeSurrogates(("mamba",))(found, Context(seed=1))
    among = SynthesizeSurrogates(("conv", "mamba"))(found, Context(seed=1))
    other = SynthesizeSurrogates(("mamba",))(found, Context(seed=2))
    name = "refinement.0"
    pairs = list(zip(weights(alone, name, "mamba"), weights(among, name, "mamba"), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    pairs = list(zip(weights(alone, name, "mamba"), weights(other, name, "mamba"), strict=True))
    assert not all(torch.equal(*pair) for pair in pairs)


class TokenBlock(nn.Module):
    """Attention over tokens, which is told the sides of the image, as SwinIR's blocks are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor, x_size: tuple[int, int]) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, 2)
        mixed = (q @ k.mT).softmax(-1) @ v
        return x + mixed * (x_size[0] / x_size[1])


class LastChannelBlock(nn.Module):
    """The same on (B, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(1, 2).chunk(3, 2)
        return x + ((q @ k.mT).softmax(-1) @ v).view(x.shape)


class Layouts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.tokens, self.last = TokenBlock(8), LastChannelBlock(8)
        self.tail = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        tokens = self.tokens(x.flatten(2).mT, x.shape[2:])
        x = self.last(tokens.mT.reshape(x.shape).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return image + self.tail(x)


def test_blocks_on_tokens_and_with_channels_last_are_replaced() -> None:
    torch.manual_seed(0)
    passes: list[Pass] = [Trace(), FindAttention(), SynthesizeSurrogates(("conv", "mamba"))]
    passes.append(DistillBlocks(steps=2, batch=2, patch=12))  # square, and the image is not
    net = Pipeline(passes).run(trace(Layouts(), torch.rand(1, 3, 16, 32)))
    assert [(each.name, each.layout) for each in net.blocks] == [
        ("tokens", "tokens"),
        ("last", "channels_last"),
    ]
    net = ApplyReplacements({"tokens": "mamba", "last": "conv"})(net)
    image = torch.rand(1, 3, 24, 16)
    assert net.hybrid()(image).shape == image.shape
    export_program(net.hybrid(), net.input_shape)


class CrossBlock(nn.Module):
    """Tokens (H W, B, C) that attend to a guide; torch's attention returns two values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, 2)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        y, _ = self.attention(self.norm(x), guide, guide)
        return x + y


class Guided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.guide = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.block = CrossBlock(8)
        self.tail = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.head(image)
        tokens = self.block(*(each.flatten(2).permute(2, 0, 1) for each in (x, self.guide(image))))
        return self.tail(tokens.permute(1, 2, 0).reshape(x.shape))


def test_a_block_with_two_inputs_is_replaced_as_a_whole() -> None:
    torch.manual_seed(0)
    labels = ("conv", "mamba@attention")
    passes = [Trace(), FindAttention(), SynthesizeSurrogates(labels)]
    net = Pipeline(passes).run(trace(Guided(), torch.rand(1, 3, 16, 8)))
    (block,) = net.blocks
    assert (block.name, block.layout, block.attention) == ("block", "tokens_first", "block")
    assert [each.label for each in net.candidates["block"]] == ["conv"]
    net = ApplyReplacements({"block": "conv"})(net)
    image = torch.rand(1, 3, 8, 16)
    assert net.hybrid()(image).shape == image.shape


class Several(CrossBlock):
    def forward(self, x: Tensor, guide: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return super().forward(x, guide), None


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Several(8)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.inner(x, guide)[0]


def test_a_block_that_returns_several_values_is_replaced() -> None:
    module = Guided()
    module.block = First()  # type: ignore[assignment]
    net = Pipeline([Trace(), FindAttention()]).run(trace(module, torch.rand(1, 3, 16, 8)))
    hybrid = SynthesizeSurrogates(("conv",))(net).with_(decisions={"block.inner": "conv"}).hybrid()
    image = torch.rand(1, 3, 16, 8)
    assert hybrid(image).shape == module(image).shape


def test_tokens_that_fit_no_grid_are_left_with_a_note(found: Network) -> None:
    block = found.block("latent.0")
    tokens = replace(block, shape=(1, 1000, 8), layout="tokens")
    others = tuple(each for each in found.blocks if each != block)
    net = SynthesizeSurrogates(("conv",))(found.with_(blocks=(tokens, *others)))
    assert "latent.0" not in net.candidates
    assert "latent.0: works on tokens (1, 1000, 8), which fit no grid" in net.log[-1].notes[0]
    with pytest.raises(PassError, match=r"no block can take a surrogate: latent\.0: works on"):
        SynthesizeSurrogates(("conv",))(found.with_(blocks=(tokens,)))


@pytest.mark.parametrize(
    ("attention", "shape", "layout", "why"),
    [
        ("latent.0.attn", (4, 4, 64), None, r"its attention works on tokens \(4, 4, 64\)"),
        ("latent.0", (1, 64, 4, 4), "image", "no module of its own"),
    ],
)
def test_attention_that_cannot_be_replaced_alone(
    found: Network, attention: str, shape: tuple[int, ...], layout: Layout | None, why: str
) -> None:
    block = replace(
        found.block("latent.0"),
        attention=attention,
        attention_shape=shape,
        attention_layout=layout,
    )
    net = SynthesizeSurrogates(("conv@attention", "conv"))(found.with_(blocks=(block,)))
    assert [each.label for each in net.candidates["latent.0"]] == ["conv"]
    assert re.match(rf"latent\.0: no @attention, .*{why}", net.log[-1].notes[0])
    net = SynthesizeSurrogates(("conv",))(found.with_(blocks=(block,)))
    assert len(net.log[-1].notes) == 1
    with pytest.raises(PassError, match=why) as caught:
        SynthesizeSurrogates(("conv@attention",))(found.with_(blocks=(block,)))
    assert "without @attention" in str(caught.value)


def test_unknown_families_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="known families"):
        SynthesizeSurrogates(("mamba3",))
    with pytest.raises(UsageError, match="@attention"):
        SynthesizeSurrogates(("conv@head",))


def test_it_needs_blocks(found: Network) -> None:
    with pytest.raises(PreconditionError, match="run FindAttention first"):
        SynthesizeSurrogates()(found.with_(blocks=()))


@pytest.fixture
def synthesized(found: Network) -> Network:
    return SynthesizeSurrogates(("conv", "mamba", "conv@attention"))(found)


def test_decisions_become_the_hybrid(synthesized: Network) -> None:
    decisions = {"latent.0": "mamba", "refinement.0": "conv@attention"}
    net = ApplyReplacements(decisions)(synthesized)
    hybrid = net.hybrid()
    assert isinstance(hybrid.get_submodule("latent.0"), MambaSurrogate)
    assert isinstance(hybrid.get_submodule("refinement.0.attn"), ConvSurrogate)
    assert net.decisions == {block.name: KEEP for block in net.blocks} | decisions
    assert not any(name.startswith("latent.0.attn") for name in hybrid.state_dict())
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert hybrid(image).shape == net.module(image).shape


def test_decisions_of_the_search_are_used(synthesized: Network) -> None:
    net = ApplyReplacements()(synthesized.with_(decisions={"latent.0": "conv"}))
    assert net.decisions["latent.0"] == "conv"
    net = ApplyReplacements({})(net)
    assert set(net.decisions.values()) == {KEEP}


def test_weights_healed_for_other_decisions_are_dropped(synthesized: Network) -> None:
    net = ApplyReplacements({"latent.0": "conv"})(synthesized)
    net = net.with_(healed=net.hybrid().state_dict())
    assert ApplyReplacements()(net).healed is not None
    assert ApplyReplacements()(net).log[-1].modified is False
    assert ApplyReplacements({"latent.0": "mamba"})(net).healed is None


def test_wrong_decisions_list_the_known(synthesized: Network) -> None:
    with pytest.raises(PassError, match="known surrogates: conv, mamba"):
        ApplyReplacements({"latent.0": "ssd"})(synthesized)
    with pytest.raises(PassError, match="known blocks"):
        ApplyReplacements({"latent.9": "conv"})(synthesized)


class Half(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., ::2, ::2]


def test_the_hybrid_keeps_the_teachers_shape(synthesized: Network) -> None:
    wrong = replace(synthesized.surrogate("latent.0", "conv"), module=Half())
    net = synthesized.with_(candidates={**synthesized.candidates, "latent.0": (wrong,)})
    with pytest.raises(PassError, match="the hybrid does not run"):
        ApplyReplacements({"latent.0": "conv"})(net)
    shape, cost = (1, 3, 32, 32), Cost(0, 0)
    net = Network(nn.Sequential(nn.Identity()), (32, 32)).with_(
        blocks=(Block("0", "0", "window", shape, shape, cost, cost),),
        candidates={"0": (replace(wrong, block="0"),)},
    )
    with pytest.raises(PassError, match=r"is \(1, 3, 16, 16\), the teacher's \(1, 3, 32, 32\)"):
        ApplyReplacements({"0": "conv"})(net)


def test_it_needs_decisions(synthesized: Network) -> None:
    with pytest.raises(PreconditionError, match="SearchReplacements"):
        ApplyReplacements()(synthesized)
