"""A surrogate answers for the block that is gone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import distillc
from distillc.passes import FindAttention, SynthesizeSurrogates, Trace
from distillc.surrogates.specs import build_surrogate


class Encoder(nn.Module):
    """torch's own encoder reads `layers[0].self_attn.batch_first` whenever it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pixels = nn.ConvTranspose2d(16, 3, 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.patches(x)
        tokens = self.encoder(y.flatten(2).transpose(1, 2))
        return x + self.pixels(tokens.transpose(1, 2).reshape(y.shape))


def test_a_parent_that_reads_its_parts_runs() -> None:
    net = distillc.trace(Encoder().eval(), torch.rand(1, 3, 16, 16))
    net = distillc.Pipeline([Trace(), FindAttention(), SynthesizeSurrogates(["conv"])])(net)
    assert len(net.candidates) == 2
    hybrid = net.hybrid(dict.fromkeys(net.candidates, "conv"))
    assert hybrid(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)
    assert not any("self_attn" in name for name in hybrid.state_dict())


@pytest.mark.parametrize("family", ["conv", "mamba", "skip"])
def test_what_it_has_itself_comes_first(family: str) -> None:
    surrogate, block = build_surrogate(family, 4), nn.Conv2d(4, 4, 3)
    names = set(surrogate.state_dict())
    surrogate.stand_in_for(block)
    for each in (surrogate, copy.deepcopy(surrogate)):
        assert (each.training, block.training) == (False, True)
        assert each.kernel_size == (3, 3)
        assert set(each.state_dict()) == names
        assert not list(each.children()) or block not in list(each.modules())
    with pytest.raises(AttributeError, match="'Conv2d' object has no attribute 'heads'"):
        _ = surrogate.heads


def test_without_a_block_nothing_is_made_up() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'kernel_size'"):
        _ = build_surrogate("skip", 4).kernel_size
