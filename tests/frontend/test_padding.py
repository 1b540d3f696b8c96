"""Padded: any size goes through a network that needs multiples."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distillc.frontend.padding import Padded
from distillc.network import Network


class Halves(nn.Module):
    """Needs even sizes; doubles the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not x.shape[2] % 8
        assert not x.shape[3] % 8
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@given(st.integers(1, 20), st.integers(1, 20))
def test_what_comes_out_is_the_image(height: int, width: int) -> None:
    x = torch.rand(1, 3, height, width)
    network = Network(Halves(), (8, 8), scale=2, multiple=8)
    padded = Padded(network.module, network.fitting((height, width)), 2)
    assert torch.equal(padded(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_a_network_of_one_size_takes_smaller_images() -> None:
    network = Network(nn.Identity(), (16, 24), fixed_size=True)
    assert network.fitting((10, 24)) == (16, 24)
    assert network.fitting((17, 24)) == (17, 24)
