"""What each of our families computes: its directions, its residual, its cost."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.cost import count_cost
from distillc.frontend.restormer import TransformerBlock
from distillc.surrogates.families.conv import ConvSurrogate
from distillc.surrogates.families.fixed import FixedSurrogate
from distillc.surrogates.families.mamba import MambaSurrogate
from distillc.surrogates.scan import ScanDirection, ScanSurrogate
from distillc.surrogates.specs import build_surrogate
from tests.surrogates.test_every_family import image, shaken

HEAD = 4
OURS = {"conv", "fixed", "mamba", "scan1", "scan2", "skip", "ss2d", "ssd"}
SEQUENTIAL = {"fixed", "mamba"}


def reached(module: nn.Module, channels: int, row: int, column: int) -> Tensor:
    """Return which pixels (H, W) of the output depend on one pixel of the input."""
    x = image(channels)
    changed = x.clone()
    changed[:, 0, row, column] += 3.0  # one channel: a norm takes out what all have in common
    with torch.no_grad():
        return (module(changed) != module(x)).any(1)[0]


def after(row: int, column: int, *, rows_first: bool, reverse: bool) -> Tensor:
    """Return the pixels (H, W) that a scan reads at or after one pixel."""
    order = torch.arange(35).reshape(5, 7) if rows_first else torch.arange(35).reshape(7, 5).T
    return order <= order[row, column] if reverse else order >= order[row, column]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("head", [None, HEAD])
def test_a_direction_reaches_what_it_reads_later(
    reverse: bool, columns: bool, head: int | None
) -> None:
    module = shaken(ScanDirection(8, 2, reverse, columns, head))
    wanted = after(2, 3, rows_first=not columns, reverse=reverse)
    assert torch.equal(reached(module, 8, 2, 3), wanted)


@pytest.mark.parametrize("head", [None, HEAD])
def test_columns_are_rows_of_the_transposed_image(head: int | None) -> None:
    rows, columns = (shaken(ScanDirection(8, 2, False, turned, head)) for turned in (False, True))
    x = image(8)
    with torch.no_grad():
        torch.testing.assert_close(columns(x), rows(x.mT.contiguous()).mT)


@pytest.mark.parametrize("head", [None, HEAD])
def test_reverse_is_the_image_turned_by_half(head: int | None) -> None:
    forth, back = (shaken(ScanDirection(8, 2, turned, False, head)) for turned in (False, True))
    x = image(8)
    with torch.no_grad():
        torch.testing.assert_close(back(x), forth(x.flip(2, 3)).flip(2, 3))


def test_step_sizes_start_between_a_thousandth_and_a_tenth() -> None:
    for head in (None, HEAD):
        steps = F.softplus(ScanDirection(64, 1, False, False, head).delta_bias)
        assert steps.min() >= 0.999e-3
        assert steps.max() <= 0.1001
        assert len(steps) == (16 if head else 64)


@pytest.mark.parametrize("head", [None, 2])
def test_a_direction_by_the_recurrence(head: int | None) -> None:
    """One pixel after the other: h = exp(dt A) h + dt B u,  y = C h + skip u."""
    module = shaken(ScanDirection(4, 3, False, False, head))
    assert isinstance(module, ScanDirection)
    multiples, share = (torch.ones(3), head) if head else (torch.arange(1, 4), 1)
    x = image(4, 3, 4)
    with torch.no_grad():
        steps, B, C = module.project(x).flatten(2).split([module.rank, 3, 3], 1)
        if module.project_steps is not None:
            steps = module.project_steps(steps[..., None])[..., 0]
        dt = F.softplus(steps + module.delta_bias[:, None])[0].repeat_interleave(share, 0)
        rates = (torch.exp(module.log_rates) * multiples).repeat_interleave(share, 0)
        u, h = x.flatten(2)[0], torch.zeros(4, 3)
        for t in range(12):
            h = torch.exp(-dt[:, t, None] * rates) * h + dt[:, t, None] * B[0, :, t] * u[:, t, None]
            wanted = h @ C[0, :, t] + module.skip * u[:, t]
            torch.testing.assert_close(module(x).flatten(2)[0, :, t], wanted)


@pytest.mark.parametrize(("directions", "whole"), [(1, False), (2, True), (4, True)])
def test_more_directions_reach_the_whole_image(directions: int, whole: bool) -> None:
    module = shaken(ScanSurrogate(4, True, directions, 1, 1))
    assert bool(reached(module, 4, 2, 3).all()) is whole


def test_a_convolution_reaches_its_window() -> None:
    hit = reached(shaken(ConvSurrogate(4, True)), 4, 2, 3)
    window = torch.zeros(5, 7, dtype=torch.bool)
    window[1:4, 2:5] = True
    assert torch.equal(hit, window)


@pytest.mark.parametrize("name", sorted(OURS - {"skip"} - SEQUENTIAL))
def test_a_whole_block_normalises_and_adds_its_input(name: str) -> None:
    """It is the attention's surrogate on the normalised input, beside the residual."""
    block = shaken(build_surrogate(name, 4, "block"))
    inner = build_surrogate(name, 4, "attention")
    inner.load_state_dict(
        {key: value for key, value in block.state_dict().items() if not key.startswith("norm.")}
    )
    assert isinstance(block, ConvSurrogate | ScanSurrogate)
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
    assert isinstance(block, FixedSurrogate)
    assert block.norm is not None
    assert block.feed_forward is not None
    x = image(8)
    with torch.no_grad():
        y = x + attention(block.norm(x))
        torch.testing.assert_close(block(x), block.feed_forward(y))


class ConstantAttention(nn.Module):
    """A block like Restormer's, whose attention matrix is the same for every image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        source = TransformerBlock(channels, 1, 1, False, True).requires_grad_(False)
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
    block, x = ConstantAttention(8), torch.randn(4, 8, 16, 16)
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


@pytest.mark.parametrize(("width", "inner"), [(100, 6), (50, 3), (266, 15), (1, 1)])
def test_a_convolution_counted_by_hand(width: int, inner: int) -> None:
    channels, pixels = 6, 7 * 9
    weights = channels * 2 * inner + 9 * 2 * inner + inner * channels
    cost = count_cost(ConvSurrogate(channels, True, width), (1, channels, 7, 9))
    assert cost.params == weights + 2 * channels
    assert cost.macs == weights * pixels


@pytest.mark.parametrize(("directions", "state", "expansion"), [(1, 1, 1), (2, 4, 1), (4, 2, 2)])
def test_a_scan_counted_by_hand(directions: int, state: int, expansion: int) -> None:
    channels, pixels = 16, 7 * 9
    inner = channels * expansion
    rank = inner // 16
    outside = channels * 2 * inner + 9 * inner + inner * channels
    projections = inner * (rank + 2 * state) + rank * inner
    vectors = 3 * inner  # step bias, rates, skip
    cost = count_cost(
        ScanSurrogate(channels, False, directions, state, expansion), (1, channels, 7, 9)
    )
    assert cost.params == outside + inner + directions * (projections + vectors)
    assert cost.macs == (outside + directions * (projections + 3 * inner * state)) * pixels


@pytest.mark.parametrize(("width", "values", "state"), [(100, 100, 1), (66, 50, 2)])
def test_a_mamba_surrogate_counted_by_hand(width: int, values: int, state: int) -> None:
    channels, pixels = 16, 7 * 9
    inner, hidden = channels * values // 100, channels * width // 100
    heads = 4  # one a direction
    products = channels * (inner + heads + 2 * state) + 9 * inner + inner * channels
    gated = channels * 2 * hidden + 9 * 2 * hidden + hidden * channels
    vectors = heads + 2 * state + heads + inner + 2 * 2 * channels  # biases, rates, skip, norms
    module = build_surrogate(f"mamba:width={width},values={values},state={state}", channels)
    cost = count_cost(module, (1, channels, 7, 9))
    assert cost.params == products + gated + vectors
    assert cost.macs == (products + gated + 3 * inner * state) * pixels


def test_the_ceiling_costs_most() -> None:
    shape = (1, 16, 16, 16)
    macs = {name: count_cost(build_surrogate(name, 16), shape).macs for name in OURS}
    assert max(macs, key=lambda name: macs[name]) == "ss2d"
    assert macs["scan1"] < macs["scan2"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("conv", 0),
        ("fixed", 0),
        ("mamba", 1),
        ("skip", 0),
        ("scan1", 1),
        ("scan2", 2),
        ("ss2d", 4),
        ("ssd", 1),
    ],
)
def test_each_direction_is_one_scan_of_the_program(name: str, count: int) -> None:
    program = torch.export.export(build_surrogate(name, 4), (torch.rand(2, 4, 6, 6),))
    scans = [node for node in program.graph.nodes if str(node.target).endswith("_scan.default")]
    assert len(scans) == count
