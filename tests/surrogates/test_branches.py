from __future__ import annotations

import pytest
import torch
from torch import nn

from distillc.frontend.restormer import TransformerBlock
from distillc.surrogates.branches import ATTENTION, FEED_FORWARD, find_branches
from distillc.surrogates.specs import build_surrogate


def block(channels: int = 8, expansion: float = 1.0) -> TransformerBlock:
    torch.manual_seed(0)
    made = TransformerBlock(channels, 1, expansion, False, True).eval()
    nn.init.uniform_(made.norm2.get_parameter("body.weight"), 0.5, 1.5)
    return made


def test_a_surrogate_of_equal_width_becomes_the_feed_forward() -> None:
    source, x = block(), torch.rand(1, 8, 12, 12)
    surrogate = build_surrogate("conv", 8, block=source)
    assert torch.allclose(surrogate(x), x + source.ffn(source.norm2(x)), atol=1e-6)


@pytest.mark.parametrize(("width", "filled"), [(50, 4), (100, 8), (200, 16), (400, 21)])
def test_narrower_takes_the_strongest_and_wider_fills_what_there_is(
    width: int, filled: int
) -> None:
    source = block(expansion=2.66)
    surrogate = build_surrogate(f"conv:width={width}", 8, block=source)
    columns = surrogate.get_parameter("project_out.weight").flatten(1).T
    used = [column for column in columns if column.any()]
    assert len(used) == filled
    whole = source.ffn.project_out.weight.flatten(1).T
    assert all(any(torch.equal(column, one) for one in whole) for column in used)


class Mlp(nn.Module):
    """A block of windows: norms, attention, feed-forward, as Swin's (arXiv 2103.14030)."""

    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(8)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(8, 24), "proj": nn.Linear(8, 8)})
        self.mlp = nn.Sequential(nn.Linear(8, hidden), nn.GELU(), nn.Linear(hidden, 8))
        self.norm2 = nn.LayerNorm(8)
        self.num_heads = 2
        for weight in (self.norm2.weight, self.norm2.bias):
            nn.init.uniform_(weight, 0.5, 1.5)


def test_a_feed_forward_without_a_gate_has_values_of_one() -> None:
    torch.manual_seed(0)
    source, x = Mlp(), torch.rand(1, 8, 12, 12)
    surrogate = build_surrogate("conv:width=150", 8, block=source)
    tokens = x.movedim(1, -1)
    wanted = tokens + source.mlp(source.norm2(tokens))
    assert torch.allclose(surrogate(x).movedim(1, -1), wanted, atol=1e-5)


def test_a_linear_attention_is_found() -> None:
    found = find_branches(source := Mlp(), 8, ATTENTION)
    assert found is not None
    assert (found.norm, found.first, found.heads, found.parts) == ("norm1", "attn.qkv", 2, 3)
    assert torch.equal(found.project_in[:, :, 0, 0], source.attn["qkv"].weight)
    assert torch.equal(found.bias, source.attn["qkv"].bias)
    x = torch.rand(1, 24, 6, 6)
    assert torch.equal(nn.functional.conv2d(x, found.dwconv, padding=1, groups=24), x)


def test_a_weight_of_the_block_itself_is_no_norm() -> None:
    source = Mlp()
    source.weight = nn.Parameter(torch.ones(8))
    for parts, norm in ((ATTENTION, "norm1"), (FEED_FORWARD, "norm2")):
        found = find_branches(source, 8, parts)
        assert found is not None
        assert found.norm == norm


@pytest.mark.parametrize("widths", [(8, 16), (8, 8, 8)])
def test_queries_and_values_may_be_layers_of_their_own(widths: tuple[int, ...]) -> None:
    projections = [nn.Linear(8, width) for width in widths]
    source = nn.Sequential(nn.LayerNorm(8), *projections, nn.Conv2d(8, 1, 1), nn.Linear(8, 8))
    found = find_branches(source, 8, ATTENTION)
    assert found is not None
    rows = torch.cat([each.weight for each in projections])
    assert torch.equal(found.project_in[:, :, 0, 0], rows)
    assert torch.equal(found.bias, torch.cat([each.bias for each in projections]))
    assert torch.equal(found.project_out[:, :, 0, 0], source[-1].weight)


def test_the_value_alone_is_convolved() -> None:
    source = nn.Sequential(
        nn.Linear(8, 32), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(16, 8)
    )
    found = find_branches(source, 8, FEED_FORWARD)
    assert found is not None
    assert torch.equal(found.dwconv[16:], source[1].weight)
    x = torch.rand(1, 16, 6, 6)
    assert torch.equal(nn.functional.conv2d(x, found.dwconv[:16], padding=1, groups=16), x)


def test_dropped_channels_matter_least() -> None:
    source = block(expansion=2)
    with torch.no_grad():
        source.ffn.project_out.weight[:, 8:] *= 1e-4
    found = find_branches(source, 8, FEED_FORWARD)
    assert found is not None
    assert torch.equal(found.narrow(8).project_out, source.ffn.project_out.weight[:, :8])


def test_an_attention_is_found_before_a_feed_forward() -> None:
    source = block(expansion=3)
    found = find_branches(source, 8, ATTENTION)
    assert found is not None
    assert found.norm == "norm1.body"
    assert torch.equal(found.project_in, source.attn.qkv.weight)
    assert found.project_out is source.attn.project_out.weight


def test_values_alone_decide_which_values_stay() -> None:
    source = block()
    with torch.no_grad():
        source.attn.qkv.weight[:16] *= torch.rand(16, 1, 1, 1)  # queries and keys
        source.attn.qkv.weight[[17, 20]] *= 1e-4
    found = find_branches(source, 8, ATTENTION)
    assert found is not None
    kept = [16, 18, 19, 21, 22, 23]
    own = found.narrow(6, ATTENTION - 1)
    assert torch.equal(own.project_in[12:], source.attn.qkv.weight[kept])
    assert torch.equal(own.dwconv[12:], source.attn.qkv_dwconv.weight[kept])
    assert torch.equal(own.project_in[:6], source.attn.qkv.weight[[each - 16 for each in kept]])


def test_heads_keep_equally_many() -> None:
    source = TransformerBlock(8, 2, 1, False, True).eval()
    with torch.no_grad():
        source.attn.project_out.weight[:, :4] *= 1e-4  # all of the first head
    found = find_branches(source, 8, ATTENTION)
    assert found is not None
    assert found.heads == 2
    kept = found.narrow(4, ATTENTION - 1, 2).project_out
    assert sum(1 for column in kept.flatten(1).T if column.abs().max() < 1e-3) == 2


@pytest.mark.parametrize(
    "source",
    [
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),
        nn.Sequential(nn.Conv2d(8, 32, 1), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 8, 1)),
        nn.Linear(8, 8),
    ],
)
def test_without_a_feed_forward_it_starts_idle(source: nn.Module) -> None:
    x = torch.rand(1, 8, 12, 12)
    assert torch.equal(build_surrogate("conv", 8, block=source)(x), x)


def test_an_attention_surrogate_starts_idle() -> None:
    x = torch.rand(1, 8, 12, 12)
    for family in ("conv", "mamba"):
        assert not build_surrogate(family, 8, "attention", block=block())(x).any()


def test_another_kernel_size_starts_idle() -> None:
    source = nn.Sequential(
        nn.Conv2d(8, 32, 1), nn.Conv2d(32, 32, 5, padding=2, groups=32), nn.Conv2d(16, 8, 1)
    )
    assert find_branches(source, 8, FEED_FORWARD) is not None
    x = torch.rand(1, 8, 12, 12)
    assert torch.equal(build_surrogate("conv", 8, block=source)(x), x)
