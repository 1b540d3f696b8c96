from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distillc.network import Layout
from distillc.surrogates.layouts import OnLayout
from distillc.surrogates.stand_in import StandIn


class Rows(StandIn):
    """Adds the row's number to (B, C, H, W): tells H and W apart."""

    def calibrate(self, given: Tensor, mixed: Tensor) -> None:
        self.seen = given, mixed

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[2]).float()[:, None]


def lay_out(image: Tensor, layout: Layout) -> Tensor:
    if layout == "image":
        return image
    if layout == "channels_last":
        return image.permute(0, 2, 3, 1)
    return image.flatten(2).permute((0, 2, 1) if layout == "tokens" else (2, 0, 1))


@pytest.mark.parametrize("layout", ["image", "channels_last", "tokens", "tokens_first"])
def test_it_does_to_any_layout_what_it_does_to_images(layout: Layout) -> None:
    image, rows = torch.rand(2, 5, 4, 6), Rows()
    wrapped = OnLayout(rows, layout, (4, 6))
    expected = lay_out(rows(image), layout)
    assert torch.equal(wrapped(lay_out(image, layout)), expected)
    assert torch.equal(wrapped(lay_out(image, layout), "mask", size=None), expected)


@pytest.mark.parametrize("layout", ["image", "channels_last", "tokens", "tokens_first"])
def test_it_is_calibrated_on_images(layout: Layout) -> None:
    rows, pair = Rows(), [torch.rand(2, 5, 4, 6) for _ in range(2)]
    OnLayout(rows, layout, (4, 6)).calibrate(*(lay_out(each, layout) for each in pair))
    assert all(torch.equal(*each) for each in zip(rows.seen, pair, strict=True))


@given(st.integers(1, 9), st.integers(1, 9))
def test_sizes_that_are_given_count(height: int, width: int) -> None:
    image, rows = torch.rand(1, 3, height, width), Rows()
    wrapped = OnLayout(rows, "tokens", (7, 3))
    tokens, expected = lay_out(image, "tokens"), lay_out(rows(image), "tokens")
    assert torch.equal(wrapped(tokens, (height, width)), expected)
    assert torch.equal(wrapped(tokens, torch.ones(3), height, width), expected)
    assert torch.equal(wrapped(tokens, x_size=[height, width]), expected)


@given(st.integers(1, 5))
def test_else_the_sides_have_the_ratio_that_was_seen(times: int) -> None:
    image, rows = torch.rand(1, 3, 2 * times, 3 * times), Rows()
    wrapped = OnLayout(rows, "tokens", (4, 6))
    assert torch.equal(wrapped(lay_out(image, "tokens")), lay_out(rows(image), "tokens"))
