from __future__ import annotations

import pytest
import torch
from torch import nn

from distillc.frontend.restormer import TransformerBlock
from distillc.surrogates.branches import ATTENTION, GATED, find_branches
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


def test_dropped_channels_matter_least() -> None:
    source = block(expansion=2)
    with torch.no_grad():
        source.ffn.project_out.weight[:, 8:] *= 1e-4
    found = find_branches(source, 8, GATED)
    assert found is not None
    assert torch.equal(found.narrow(8).project_out, source.ffn.project_out.weight[:, :8])


def test_an_attention_is_found_before_a_feed_forward() -> None:
    source = block(expansion=3)
    found = find_branches(source, 8, ATTENTION)
    assert found is not None
    assert found.norm is source.norm1.get_parameter("body.weight")
    assert found.project_in is source.attn.qkv.weight
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
    assert find_branches(source, 8, GATED) is not None
    x = torch.rand(1, 8, 12, 12)
    assert torch.equal(build_surrogate("conv", 8, block=source)(x), x)
