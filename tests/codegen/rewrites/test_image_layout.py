"""ImageLayout: tokens stay images, and attention is one kernel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import prod

import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from distillc.codegen.rewrites.image_layout import ImageLayout
from distillc.targets.base import get_target
from tests.codegen.rewrites.graphs import calls, check_same, operators

REWRITE = ImageLayout(get_target("host"))


def attentions(mod: tvm.IRModule) -> int:
    """Count the calls of attention kernels."""
    return operators(mod)["call_tir"]


def moved(mod: tvm.IRModule) -> int:
    """Count the numbers that are transposed or looked up."""
    names = ("relax.permute_dims", "relax.take")
    found = [call for call in calls(mod) if getattr(call.op, "name", "") in names]
    return sum(prod(map(int, call.ty.shape)) for call in found)


def roll(x: Tensor, shift: int, dim: int) -> Tensor:
    """Shift backwards; torch's own operator looks up places that only the whole compiler folds."""
    rest = x.narrow(dim, shift, x.shape[dim] - shift)
    return torch.cat([rest, x.narrow(dim, 0, shift)], dim)


class Windows(nn.Module):
    """Attention in windows as SwinIR writes it.

    Args:
        window: Height and width of a window.
        shift: Pixels by which windows are shifted.
        heads: Heads of 4 channels each.
        size: Height and width of the images, where the shifted windows have a mask.
        cosine: Whether queries and keys have length one, and heads a temperature.
    """

    def __init__(
        self,
        window: tuple[int, int],
        shift: int = 0,
        heads: int = 2,
        size: tuple[int, int] | None = None,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        channels = 4 * heads
        self.window, self.shift, self.heads, self.cosine = window, shift, heads, cosine
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.randn(heads, prod(window), prod(window)))
        self.temperature = nn.Parameter(torch.rand(heads, 1, 1) + 1)
        if size is not None:
            areas = torch.zeros(1, *size, 1)
            areas[:, -shift:] += 1
            areas[:, :, -shift:] += 2
            area = self.partition(areas).squeeze(-1)
            self.mask = (area[:, None] != area[:, :, None]) * -100.0
        self.masked = size is not None

    def partition(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        rows, columns = self.window
        x = x.view(b, h // rows, rows, w // columns, columns, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, c)

    def forward(self, image: Tensor) -> Tensor:
        _, c, h, w = image.shape
        x = image.flatten(2).transpose(1, 2)
        y = self.norm(x).view(1, h, w, c)
        if self.shift:
            y = roll(roll(y, self.shift, 1), self.shift, 2)
        windows = self.partition(y)
        count, n, _ = windows.shape
        qkv = self.qkv(windows).reshape(count, n, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        if self.cosine:
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.temperature
        else:
            scores = (q * 0.5) @ k.mT
        scores = scores + self.bias
        if self.masked:
            scores = scores.view(1, count, self.heads, n, n) + self.mask[:, None]
            scores = scores.view(count, self.heads, n, n)
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(count, n, c))
        rows, columns = self.window
        y = y.view(1, h // rows, w // columns, rows, columns, c)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(1, h, w, c)
        if self.shift:
            y = roll(roll(y, h - self.shift, 1), w - self.shift, 2)
        return (x + y.reshape(1, h * w, c)).transpose(1, 2).view(1, c, h, w)


@pytest.mark.parametrize(
    "module",
    [
        Windows((4, 4)),
        Windows((4, 4), heads=1),
        Windows((4, 4), shift=2),
        Windows((4, 4), shift=2, size=(12, 24)),
        Windows((2, 8)),
        Windows((3, 3), shift=1, size=(12, 24)),
        Windows((12, 24)),
        Windows((4, 4), cosine=True),
    ],
    ids=["plain", "one head", "shifted", "masked", "flat", "odd", "global", "cosine"],
)
def test_windows_are_one_kernel(module: nn.Module) -> None:
    channels = 4 * module.heads  # type: ignore[operator]
    after = check_same(REWRITE, module, torch.randn(1, channels, 12, 24))
    assert attentions(after) == 1
    assert moved(after) == 0


def test_masks_that_are_equal_are_kept_once() -> None:
    after = check_same(REWRITE, Windows((4, 4), shift=2, size=(24, 24)), torch.randn(1, 8, 24, 24))
    (call,) = [each for each in calls(after) if each.op.name == "relax.call_tir"]
    shapes = [tuple(map(int, arg.ty.shape)) for arg in call.args[1].fields]
    assert (3, 1, 16, 16) in shapes  # right, below and in the corner; 25 of 36 windows have none
    assert (2, 1, 16, 16) in shapes


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(-1) @ v


def test_tensors_that_are_no_tokens() -> None:
    after = check_same(REWRITE, attend, *(torch.randn(3, 8, 5) for _ in range(3)))
    assert attentions(after) == 1


def test_keys_of_other_images() -> None:
    def cross(x: Tensor, y: Tensor) -> Tensor:
        q, k = (each.flatten(2).mT for each in (x, y))
        return attend(q, k, k).mT.reshape(x.shape)

    after = check_same(REWRITE, cross, torch.randn(1, 4, 4, 8), torch.randn(1, 4, 2, 8))
    assert attentions(after) == 1


def test_keys_whose_neighbours_are_channels() -> None:
    """Attention to tokens that hold four pixels each, as SRFormer's."""

    def permuted(x: Tensor) -> Tensor:
        q = x.flatten(2).mT.reshape(1, 64, 2, 4).transpose(1, 2)
        small = x[:, :2].view(2, 4, 2, 4, 2).permute(1, 3, 2, 4, 0).reshape(1, 16, 2, 4)
        k = small.transpose(1, 2)
        return attend(q, k, k).transpose(1, 2).reshape(1, 64, 8)

    after = check_same(REWRITE, permuted, torch.randn(1, 8, 8, 8))
    assert attentions(after) == 1


def test_einsum_of_heads() -> None:
    def einsum(x: Tensor) -> Tensor:
        tokens = x.view(2, 4, 4, 4, 8, 3)
        q = tokens.permute(0, 2, 4, 3, 5, 1).reshape(2, 32, 12, 4)
        scores = torch.einsum("hwpc,hwqc->hwpq", q, q) * 0.5
        return torch.einsum("hwij,hwjc->hwic", scores.softmax(-1), q)

    after = check_same(REWRITE, einsum, torch.randn(1, 8, 16, 24))
    assert attentions(after) == 1


def test_a_gated_feed_forward_stays_in_the_image() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner = nn.LayerNorm(8), nn.Linear(8, 24)
            self.conv, self.outer = nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.Linear(12, 8)

        def forward(self, image: Tensor) -> Tensor:
            x = image.flatten(2).mT
            y = self.inner(self.norm(x))
            a, b = y[..., :12], y[..., 12:]
            b = self.conv(b.mT.reshape(1, 12, *image.shape[2:])).flatten(2).mT
            gate = image.mean((2, 3)).sigmoid()[:, None]
            y = self.outer(F.gelu(a) * b) * gate + x
            return y.mT.reshape(image.shape)

    after = check_same(REWRITE, Gated(), torch.randn(1, 8, 6, 10))
    assert moved(after) == 0


def test_positions_are_added_where_the_pixels_lie() -> None:
    table = torch.randn(9, 8)

    def placed(x: Tensor) -> Tensor:
        windows = x.view(8, 2, 3, 2, 3).permute(1, 3, 2, 4, 0).reshape(4, 9, 8)
        return (windows.relu() + table) * 2

    after = check_same(REWRITE, placed, torch.randn(1, 8, 6, 6))
    assert moved(after) == 8 * 36  # once, for what is returned


def test_tokens_in_two_orders_are_added() -> None:
    def added(x: Tensor) -> Tensor:
        rows = x.flatten(2).mT.tanh()
        columns = x.mT.flatten(2).mT.sigmoid()
        return rows + columns

    check_same(REWRITE, added, torch.randn(1, 3, 4, 5))


def test_channels_first_is_left_alone() -> None:
    def channels(x: Tensor) -> Tensor:
        q = F.normalize(x.reshape(1, 2, 4, 48), dim=-1)
        return attend(q, q, q).reshape(x.shape)

    after = check_same(REWRITE, channels, torch.randn(1, 8, 6, 8))
    assert attentions(after) == 0
    assert moved(after) == 8 * 48  # kT


def test_what_is_not_one_kernel_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def read_twice(x: Tensor) -> Tensor:
        scores = (x @ x.mT).softmax(-1)
        return scores @ x + scores.sum(-1, keepdim=True)

    with caplog.at_level(logging.DEBUG, "distillc"):
        check_same(REWRITE, read_twice, torch.randn(2, 8, 4))
    assert "something else than products reads it" in caplog.text


VIEWS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "permute": lambda x, k: x.permute(*[(i + k) % x.dim() for i in range(x.dim())]),
    "flatten": lambda x, k: x.flatten(k % x.dim(), -1),
    "split": lambda x, k: x.unflatten(k % x.dim(), (2, -1)) if x.shape[k % x.dim()] % 2 == 0 else x,
    "roll": lambda x, k: x.roll(k + 1, k % x.dim()),
    "slice": lambda x, k: x.narrow(k % x.dim(), 0, -(-x.shape[k % x.dim()] // 2)),
    "select": lambda x, k: x.select(k % x.dim(), 0) if x.dim() > 2 else x,
    "flip": lambda x, k: x.flip(k % x.dim()),
    "double": lambda x, k: torch.cat([x, x.flip(0)], k % x.dim()),
    "activate": lambda x, _: F.gelu(x),
    "halve": lambda x, _: x * 0.5,
    "table": lambda x, _: x + torch.linspace(0, 1, x.shape[-1]),
    "add": lambda x, _: x + x.tanh(),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(VIEWS)), st.integers(0, 5)), max_size=7))
@settings(max_examples=15, deadline=None)
def test_any_views(steps: list[tuple[str, int]]) -> None:
    def viewed(x: Tensor) -> Tensor:
        y = x.sigmoid()
        for name, number in steps:
            y = VIEWS[name](y, number)
        return y * 3

    check_same(REWRITE, viewed, torch.randn(1, 6, 4, 8))


def test_shuffled_pixels_are_an_image_again() -> None:
    def shuffled(x: Tensor, skip: Tensor) -> Tensor:
        return F.pixel_shuffle(x, 2).relu() + skip

    after = check_same(REWRITE, shuffled, torch.randn(1, 8, 4, 6), torch.randn(1, 2, 8, 12))
    assert moved(after) == 8 * 24


def test_one_number_for_a_channel_is_combined_with_tokens() -> None:
    def scaled(x: Tensor) -> Tensor:
        tokens = x.view(3, 2, 2, 2, 3).permute(1, 3, 2, 4, 0).reshape(4, 6, 3)
        return tokens.tanh() * x.mean((2, 3)).sigmoid().view(1, 1, 3)

    check_same(REWRITE, scaled, torch.randn(1, 3, 4, 6))


def test_a_number_stays_a_number() -> None:
    """An exponent in a tensor would be a call of libm for every element."""
    after = check_same(REWRITE, lambda x: x.flatten(2).mT.pow(2), torch.randn(1, 3, 4, 6))
    (call,) = [each for each in calls(after) if each.op.name == "relax.power"]
    assert len(call.args[1].ty.shape) == 0


@pytest.mark.parametrize("value", [-torch.inf, -1e9])
@pytest.mark.parametrize("turned", [False, True])
def test_scores_that_are_filled_have_a_mask(value: float, turned: bool) -> None:
    keep = torch.rand(2, 1, 16, 16) > 0.3
    keep |= torch.eye(16, dtype=torch.bool)
    drop, fill = ~keep, torch.tensor(value)

    def filled(x: Tensor) -> Tensor:
        tokens = x.view(2, 4, 2, 16).permute(2, 0, 3, 1)
        scores = tokens @ tokens.mT
        scores = torch.where(keep, scores, fill) if turned else torch.where(drop, fill, scores)
        return scores.softmax(-1) @ tokens

    after = check_same(REWRITE, filled, torch.randn(1, 8, 4, 8))
    assert attentions(after) == 1


def test_scores_that_are_filled_with_some_number_stay() -> None:
    keep, fill = torch.rand(16, 16) > 0.3, torch.tensor(-1.0)

    def filled(x: Tensor) -> Tensor:
        tokens = x.view(2, 4, 2, 16).permute(2, 0, 3, 1)
        scores = torch.where(keep, tokens @ tokens.mT, fill)
        return scores.softmax(-1) @ tokens

    assert attentions(check_same(REWRITE, filled, torch.randn(1, 8, 4, 8))) == 0
