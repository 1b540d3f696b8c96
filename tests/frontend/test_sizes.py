"""find_sizes: which sizes a network takes, found by few and cheap runs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import distillc
from distillc.errors import TraceError
from distillc.frontend.sizes import MOST_PIXELS, SizeRule, find_edge, find_sizes
from distillc.frontend.trace import trace_module


class Windows(nn.Module):
    """Mixes the pixels of windows, after it has made the image smaller some times.

    Args:
        window: Edge of the windows.
        halvings: How often the image is halved before.
        square: Whether it takes the edge of an image from its number of pixels.
    """

    def __init__(self, window: int, halvings: int = 0, square: bool = False) -> None:
        super().__init__()
        self.window = window
        self.square = square
        self.first = nn.Conv2d(3, 4, 1)
        self.down = nn.Sequential(*(nn.Conv2d(4, 4, 2, 2) for _ in range(halvings)))
        self.mix = nn.Linear(window**2, window**2)
        self.up = nn.Sequential(*(nn.ConvTranspose2d(4, 4, 2, 2) for _ in range(halvings)))
        self.last = nn.Conv2d(4, 3, 1)
        self.pixels: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.pixels.append(0 if image.is_meta else image[0, 0].numel())
        x = self.down(self.first(image))
        b, c, h, w = x.shape
        if self.square:
            h = w = math.isqrt(h * w)
        s = self.window
        x = x.reshape(b, c, h // s, s, w // s, s).transpose(3, 4)
        x = self.mix(x.reshape(b, c, h // s, w // s, s * s))
        x = x.reshape(b, c, h // s, w // s, s, s).transpose(3, 4).reshape(b, c, h, w)
        return image + self.last(self.up(x))


class Table(nn.Module):
    """Adds a table of one size."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.rand(1, 3, height, width))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.places


@settings(max_examples=6, deadline=None)
@given(window=st.integers(2, 16), halvings=st.integers(0, 3), square=st.booleans())
def test_multiples_and_squares(window: int, halvings: int, square: bool) -> None:
    module = Windows(window, halvings, square).eval()
    multiple = window * 2**halvings
    edge = find_edge(module, 3)
    assert edge is not None
    assert edge % multiple == 0
    assert find_sizes(module, torch.zeros(1, 3, edge, edge)) == SizeRule(multiple, square)
    assert max(module.pixels) <= MOST_PIXELS  # larger images have no values
    net = trace_module(module, (64, 64))
    assert (net.multiple, net.square) == (multiple, square)
    assert net.size == net.fitting((64, 64))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (224, 224)])
def test_one_size_is_found_and_named(height: int, width: int) -> None:
    with pytest.raises(TraceError, match=f"runs at {height}x{width} only"):
        distillc.trace(Table(height, width), torch.rand(1, 3, 64, 64))
    net = trace_module(Table(height, width), (64, 64))
    assert (net.size, net.fixed_size, net.square) == ((height, width), True, False)


@pytest.mark.parametrize(("rows", "columns", "multiple"), [(4, 16, 16), (6, 10, 30)])
def test_edges_of_different_multiples(rows: int, columns: int, multiple: int) -> None:
    class Oblong(nn.Module):
        """Mixes the pixels of windows that are not square."""

        def forward(self, image: Tensor) -> Tensor:
            b, c, h, w = image.shape
            windows = image.reshape(b, c, h // rows, rows, w // columns, columns)
            return (windows - windows.mean((3, 5), keepdim=True)).reshape(b, c, h, w)

    edge = 2 * multiple
    assert find_sizes(Oblong(), torch.zeros(1, 3, edge, edge)) == SizeRule(multiple)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (56, 56), (64, 64), (48, 32)])
def test_masks_that_were_fixed_for_one_size_leave_it_alone(height: int, width: int) -> None:
    s = 7 if height == 56 else 8

    class Masked(nn.Module):
        """Lays the masks of all windows of one size over the windows of any number of images."""

        def forward(self, image: Tensor) -> Tensor:
            b, c, h, w = image.shape
            x = image.reshape(b, c, h // s, s, w // s, s).permute(0, 2, 4, 1, 3, 5)
            x = x.reshape(-1, height * width // s**2, c, s, s) + torch.rand(s, s)
            x = x.reshape(b, h // s, w // s, c, s, s).permute(0, 3, 1, 4, 2, 5)
            return x.reshape(b, c, h, w)

    assert find_sizes(Masked(), torch.zeros(1, 3, height, width)) is None
    if height == width:
        assert trace_module(Masked(), (72, 72)).size == (height, width)


def test_one_size_that_is_given() -> None:
    net = distillc.trace(Table(40, 52), torch.rand(1, 3, 40, 52))
    assert (net.size, net.fixed_size) == ((40, 52), True)


def test_what_fails_at_every_size_says_why() -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("no such thing")

    assert find_edge(Broken(), 3) is None
    with pytest.raises(TraceError, match=r"does not run on .*: no such thing"):
        distillc.trace(Broken(), torch.rand(1, 3, 64, 64))


def test_values_that_choose_python_are_asked_for() -> None:
    class Looking(Windows):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) if image.sum() < 1 else image

    assert find_sizes(Looking(7, 3), torch.zeros(1, 3, 56, 56)) == SizeRule(56)


def test_a_network_of_squares_names_and_fits_them() -> None:
    net = distillc.trace(Windows(4, square=True), torch.rand(1, 3, 32, 32))
    assert net.fitting((30, 41)) == (44, 44)
    assert net.at((44, 44)).size == (44, 44)
    with pytest.raises(TraceError, match=r"must be equal, and multiples of 4\n.*try 64x64"):
        net.at((32, 64))
    with pytest.raises(TraceError, match="must be equal"):
        distillc.trace(Windows(4, square=True), torch.rand(1, 3, 32, 64))
