"""What each of our families computes: its directions, its residual, its cost."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distillc.frontend.cost import count_cost
from distillc.frontend.restormer import TransformerBlock
from distillc.surrogates.families.conv import ConvSurrogate
from distillc.surrogates.families.mamba import MambaSurrogate
from distillc.surrogates.families.ssd import SsdSurrogate
from distillc.surrogates.specs import build_surrogate
from tests.surrogates.test_every_family import image, shaken

OURS = {"conv", "mamba", "skip", "ssd"}
SEQUENTIAL = {"mamba", "ssd"}


def reached(module: nn.Module, channels: int, row: int, column: int) -> Tensor:
    """Return which pixels (H, W) of the output depend on one pixel of the input."""
    x = image(channels)
    changed = x.clone()
    changed[:, 0, row, column] += 3.0  # one channel: a norm takes out what all have in common
    with torch.no_grad():
        return (module(changed) != module(x)).any(1)[0]


def test_a_convolution_reaches_its_window() -> None:
    hit = reached(shaken(ConvSurrogate(4, True)), 4, 2, 3)
    window = torch.zeros(5, 7, dtype=torch.bool)
    window[1:4, 2:5] = True
    assert torch.equal(hit, window)


def test_a_whole_block_normalises_and_adds_its_input() -> None:
    """It is the attention's surrogate on the normalised input, beside the residual."""
    block = shaken(build_surrogate("conv", 4))
    inner = build_surrogate("conv", 4, "attention")
    own = block.state_dict()
    inner.load_state_dict({key: own[key] for key in inner.state_dict()})
    assert isinstance(block, ConvSurrogate)
    assert block.norm is not None
    x = image(4)
    with torch.no_grad():
        torch.testing.assert_close(block(x), x + inner(block.norm(x)))


@pytest.mark.parametrize("name", sorted(SEQUENTIAL))
def test_a_block_is_its_attention_then_a_convolution(name: str) -> None:
    block = shaken(build_surrogate(name, 8))
    attention = build_surrogate(name, 8, "attention")
    own = block.state_dict()
    attention.load_state_dict({key: own[key] for key in attention.state_dict()})
    assert isinstance(block, SsdSurrogate)
    assert block.norm is not None
    assert block.feed_forward is not None
    x = image(8)
    with torch.no_grad():
        y = x + attention(block.norm(x))
        torch.testing.assert_close(block(x), block.feed_forward(y))


class ConstantAttention(nn.Module):
    """A block like Restormer's, whose attention matrix is the same for every image."""

    def __init__(self, channels: int, heads: int = 1) -> None:
        super().__init__()
        source = TransformerBlock(channels, heads, 1, False, True).requires_grad_(False)
        self.norm1, self.attn = source.norm1, source.attn
        self.norm2, self.ffn = source.norm2, source.ffn
        self.matrix = nn.Parameter(torch.randn(channels, channels), requires_grad=False)

    def mixed(self, x: Tensor) -> Tensor:
        values = self.attn.qkv_dwconv(self.attn.qkv(self.norm1(x))).chunk(3, 1)[2]
        mixed: Tensor = self.attn.project_out(torch.einsum("oc,bchw->bohw", self.matrix, values))
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.mixed(x)
        output: Tensor = y + self.ffn(self.norm2(y))
        return output


@pytest.mark.parametrize("name", sorted(SEQUENTIAL))
def test_a_constant_attention_is_learnt_from_one_batch(name: str) -> None:
    torch.manual_seed(0)
    block, x = ConstantAttention(8), torch.randn(16, 8, 16, 16)
    surrogate = build_surrogate(name, 8, block=block)
    attention = build_surrogate(name, 8, "attention", block=block)
    unseen = torch.randn(1, 8, 16, 16)
    with torch.no_grad():
        surrogate.calibrate(x, block.mixed(x))
        attention.calibrate(block.norm1(x), block.mixed(x))
        torch.testing.assert_close(surrogate(unseen), block(unseen), rtol=0, atol=2e-3)
        mixed = attention(block.norm1(unseen))
        torch.testing.assert_close(mixed, block.mixed(unseen), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", sorted(SEQUENTIAL))
def test_what_mixes_nothing_is_calibrated_to_nothing(name: str) -> None:
    surrogate = build_surrogate(name, 8)
    x = torch.zeros(1, 8, 4, 4)
    surrogate.calibrate(x, x)
    assert torch.equal(surrogate(image(8)), image(8))


@pytest.mark.parametrize(("channels", "directions"), [(16, 4), (6, 2), (3, 1)])
def test_a_mamba_surrogate_trains_what_it_runs(channels: int, directions: int) -> None:
    """In training the projections are products of their own."""
    module = shaken(build_surrogate("mamba:state=2", channels, "attention"))
    assert isinstance(module, MambaSurrogate)
    assert len(module.directions.split(",")) == directions
    x = image(channels)
    with torch.no_grad():
        torch.testing.assert_close(module.train()(x), module.eval()(x), rtol=1e-5, atol=1e-4)


def test_heads_of_a_mamba_surrogate_scan_along_the_axes() -> None:
    module = shaken(build_surrogate("mamba", 16, "attention"))
    assert isinstance(module, MambaSurrogate)
    hit = reached(module, 16, 2, 3)
    assert hit[1:4].all()  # a depthwise convolution before the scan: three rows and columns
    assert hit[:, 2:5].all()
    assert not hit[0, 0]


def test_every_pixel_reads_the_state() -> None:
    module = shaken(build_surrogate("ssd", 16, "attention"))
    assert reached(module, 16, 4, 3).all()
    assert reached(module, 16, 2, 3).sum() == 9  # this row does not write: its window alone


class LinearAttention(ConstantAttention):
    """The same, but its matrix is that of queries and keys, without a softmax."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__(channels, heads)
        centre = torch.zeros(3, 3)
        centre[1, 1] = 1
        self.attn.qkv_dwconv.weight *= centre  # what writes to a state sees one pixel

    def mixed(self, x: Tensor) -> Tensor:
        heads = len(self.attn.temperature)
        parts = self.attn.qkv_dwconv(self.attn.qkv(self.norm1(x))).chunk(3, 1)
        q, k, v = (each.flatten(2).unflatten(1, (heads, -1)) for each in parts)
        matrix = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        mixed: Tensor = self.attn.project_out((matrix @ v).reshape(x.shape))
        return mixed


@pytest.mark.parametrize("name", sorted(SEQUENTIAL))
def test_an_attention_that_adapts_is_learnt_from_one_batch(name: str) -> None:
    """Where what a few rows write is what all would write: every row is like the others."""
    torch.manual_seed(0)
    block = LinearAttention(8, heads=2)
    surrogate = build_surrogate(name, 8, block=block)
    x, unseen = (torch.randn(n, 8, 1, 16).expand(-1, -1, 16, -1) for n in (6, 1))
    with torch.no_grad():
        surrogate.calibrate(x, block.mixed(x))
        torch.testing.assert_close(surrogate(unseen), block(unseen), rtol=0, atol=2e-3)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(1, 3))
def test_a_state_means_the_same_at_every_size(tall: int, wide: int) -> None:
    module = shaken(build_surrogate("ssd", 16))
    assert isinstance(module, SsdSurrogate)
    x = image(16, 8, 7)
    with torch.no_grad():
        torch.testing.assert_close(module.state(x.repeat(1, 1, tall, wide)), module.state(x))


@pytest.mark.parametrize(("width", "inner"), [(100, 6), (50, 3), (266, 15), (1, 1)])
def test_a_convolution_counted_by_hand(width: int, inner: int) -> None:
    channels, pixels = 6, 7 * 9
    weights = channels * 2 * inner + 9 * 2 * inner + inner * channels
    cost = count_cost(ConvSurrogate(channels, True, width), (1, channels, 7, 9))
    biases = 2 * inner + channels
    assert cost.params == weights + biases + 2 * channels
    assert cost.macs == weights * pixels


@pytest.mark.parametrize(("width", "values", "state"), [(100, 100, 1), (66, 50, 2)])
def test_a_mamba_surrogate_counted_by_hand(width: int, values: int, state: int) -> None:
    channels, pixels = 16, 7 * 9
    inner, hidden = channels * values // 100, channels * width // 100
    heads = 4  # one a direction
    products = channels * (inner + heads + 2 * state) + 9 * inner + inner * channels
    written, groups = channels * 2 * inner, 1  # two of seven rows write to the state
    state_macs = 2 * 9 * (written + inner * inner // groups) + inner * inner * channels // groups
    gated = channels * 2 * hidden + 9 * 2 * hidden + hidden * channels
    vectors = heads + 2 * state + heads + inner + 2 * 2 * channels  # biases, rates, skip, norms
    vectors += inner + channels + 2 * hidden + channels  # biases of what is no scan
    module = build_surrogate(f"mamba:width={width},values={values},state={state}", channels)
    cost = count_cost(module, (1, channels, 7, 9))
    assert cost.params == products + gated + vectors + written + inner * channels
    assert cost.macs == (products + gated + 3 * inner * state) * pixels + state_macs


@pytest.mark.parametrize(("name", "count"), [("conv", 0), ("ssd", 0), ("mamba", 1), ("skip", 0)])
def test_all_directions_are_one_scan_of_the_program(name: str, count: int) -> None:
    program = torch.export.export(build_surrogate(name, 4), (torch.rand(2, 4, 6, 6),))
    scans = [node for node in program.graph.nodes if "axial_scan" in str(node.target)]
    assert len(scans) == count


def test_step_sizes_start_between_a_thousandth_and_a_tenth() -> None:
    module = build_surrogate("mamba", 64)
    assert isinstance(module, MambaSurrogate)
    steps = F.softplus(module.scan_bias.split(module.sizes)[0])
    assert len(steps) == 4
    assert steps.min() >= 0.999e-3
    assert steps.max() <= 0.1001
