"""What the axes of an activation count, where extents alone could not tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distillc.frontend.axes import _regroup, channel_axis, counts_channels, follow_axes

SIDE = 4
CHANNELS = 16  # as many as pixels


class Shapes(nn.Module):
    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 1)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        self.change = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.mix(self.conv(x).permute(0, 2, 3, 1)))  # (B, H, W, C)


def windows(x: Tensor) -> Tensor:
    x = x.view(1, 2, 2, 2, 2, CHANNELS).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(4, 4, CHANNELS)


def heads(x: Tensor) -> Tensor:
    return windows(x).reshape(4, 4, 4, 4).transpose(1, 2)  # (windows, heads, tokens, channels)


def attended(x: Tensor) -> Tensor:
    x = x.flatten(1, 2)
    return (x @ x.transpose(1, 2)).softmax(-1) @ x


@pytest.mark.parametrize(
    ("change", "channels"),
    [
        (lambda x: x, [3]),
        (lambda x: x.flatten(1, 2), [2]),
        (lambda x: x.flatten(1, 2).transpose(1, 2), [1]),
        (lambda x: x.permute(0, 3, 1, 2), [1]),
        (lambda x: x.permute(0, 3, 1, 2).chunk(2, 1)[1], [1]),
        (lambda x: x.reshape(1, 16, 4, 4), [2, 3]),
        (lambda x: x.select(0, 0), [2]),
        (lambda x: F.layer_norm(x, (CHANNELS,)) * 2 + torch.roll(x, (1, 1), (1, 2)), [3]),
        (lambda x: F.pad(x, (0, 0, 0, 2))[:, 1:], [3]),
        (windows, [2]),
        (heads, [1, 3]),
        (attended, [2]),
        (lambda x: torch.einsum("bhwc,bhwd->bcd", x, x), [1, 2]),
        (lambda x: F.conv2d(x.permute(0, 3, 1, 2), torch.zeros(8, CHANNELS, 1, 1)), [1]),
    ],
)
def test_channels_are_followed(change: Callable[[Tensor], Tensor], channels: list[int]) -> None:
    program = torch.export.export(Shapes(change).eval(), (torch.zeros(1, 3, SIDE, SIDE),))
    known = follow_axes(program)
    (result,) = program.graph.find_nodes(op="output")[0].all_input_nodes
    axes = known[result]
    assert [index for index, each in enumerate(axes) if counts_channels(each)] == channels
    assert channel_axis(axes) == channels[-1]


def test_what_cannot_be_followed_is_unknown() -> None:
    program = torch.export.export(
        Shapes(lambda x: x.unfold(1, 2, 1)).eval(), (torch.zeros(1, 3, SIDE, SIDE),)
    )
    (result,) = program.graph.find_nodes(op="output")[0].all_input_nodes
    assert result not in follow_axes(program)
    assert channel_axis(()) is None


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=2, max_size=5), st.data())
def test_a_reshape_and_its_inverse_keep_the_meaning(
    extents: list[int], data: st.DataObject
) -> None:
    channel = data.draw(st.integers(0, len(extents) - 1))
    axes = tuple(
        ((extent, index == channel),) if extent > 1 else () for index, extent in enumerate(extents)
    )
    merged = data.draw(st.integers(0, len(extents) - 2))
    flat = [*extents[:merged], extents[merged] * extents[merged + 1], *extents[merged + 2 :]]
    there = _regroup(axes, tuple(flat))
    assert there is not None
    assert _regroup(there, tuple(extents)) == axes
