"""Every rule: who takes what, what the loops look like, and numbers equal to torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm import tirx

from distillc.codegen.schedule.apply_rules import schedule_func
from distillc.codegen.schedule.rules.base import box_heights
from distillc.codegen.schedule.rules.contraction import packed_tiles, register_tile, row_shares
from distillc.targets.base import Target
from tests.codegen.schedule.rules.kernels import (
    AVX512,
    NEON,
    SSE,
    Function,
    check,
    lower,
    random,
    rules_of,
)

SIZES = [(16, 24), (40, 56), (5, 7)]


def script(module: nn.Module, *inputs: torch.Tensor, target: Target = SSE) -> str:
    """Return the scheduled text of a module's kernels."""
    mod = lower(module, *inputs, target=target)
    funcs = [f for _, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)]
    return "\n".join(schedule_func(func, target, "kernel").script() for func in funcs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("cin", "cout"), [(16, 48), (7, 5), (3, 17)])
def test_pointwise_convolution(size, cin, cout) -> None:
    conv = nn.Conv2d(cin, cout, 1)
    check(conv, random(1, cin, *size), rule="schedule_contraction")


@pytest.mark.parametrize("target", [SSE, AVX512], ids=lambda target: target.name)
def test_pointwise_convolution_with_residual(target) -> None:
    conv = nn.Conv2d(12, 12, 1, bias=False)
    x = random(1, 12, 40, 56)
    check(Function(lambda x: x + conv(x)), x, target=target, rule="schedule_contraction")


def test_pointwise_convolution_keeps_its_accumulators_local() -> None:
    text = script(nn.Conv2d(16, 48, 1, bias=False), random(1, 16, 32, 32))
    assert 'scope="local"' in text
    assert "T.parallel" in text
    assert "T.vectorized" in text


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("cin", "cout"), [(8, 12), (3, 5)])
def test_dense_convolution(size, cin, cout) -> None:
    conv = nn.Conv2d(cin, cout, 3, padding=1)
    check(conv, random(1, cin, *size), rule="schedule_convolution")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [3, 5])
def test_depthwise_convolution(size, kernel) -> None:
    conv = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=False)
    check(conv, random(1, 6, *size), rule="schedule_convolution")


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("size", SIZES)
def test_convolution_of_what_is_there(size, mode, groups) -> None:
    padding = 0 if mode == "zeros" else 1
    conv = nn.Conv2d(6, 6, 3, padding=padding, padding_mode=mode, groups=groups)
    image = random(1, 6, size[0] + 2, size[1] + 2)
    check(Function(lambda x: F.relu(conv(x))), image, rule="schedule_convolution")


def test_patches() -> None:
    check(nn.Conv2d(3, 8, 4, 4), random(1, 3, 32, 48), rule="schedule_convolution")


def test_padding_is_copied_without_a_condition() -> None:
    conv = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    assert "if_then_else" not in script(conv, random(1, 6, 32, 32))


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_border_around_what_a_convolution_gives(kernel: int, mode: str) -> None:
    conv = nn.Conv2d(4, 8, kernel, padding=kernel // 2)

    def bordered(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(conv(x) + y, (0, 1, 0, 1), mode)

    rule = "schedule_contraction" if kernel == 1 else "schedule_convolution"
    check(Function(bordered), random(1, 4, 16, 16), random(1, 8, 16, 16), rule=rule)


def test_strided_convolution() -> None:
    check(nn.Conv2d(4, 8, 3, padding=1, stride=2), random(1, 4, 16, 24))


@pytest.mark.parametrize("pixels", [32, 64, 4096, 2240, 35])
def test_channel_attention(pixels) -> None:
    def attention(q, k, v):
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v

    check(Function(attention), *(random(1, 2, 16, pixels + i * 0) + i for i in range(3)))


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (16, 8)])
def test_a_matrix_as_large_as_the_image_is_not_taken_for_one(size: tuple[int, int]) -> None:
    product = Function(lambda matrix, image: matrix @ image.flatten(2))
    check(product, random(1, 16, 16), random(1, 16, *size), rule="schedule_contraction")


def test_long_sum_is_divided_among_threads() -> None:
    product = Function(torch.matmul)
    inputs = random(1, 16, 4096), random(1, 4096, 16)
    check(product, *inputs, rule="schedule_long_sum")
    assert "matmul_rf" in script(product, *inputs)


@pytest.mark.parametrize("size", SIZES)
def test_layer_norm_over_channels(size) -> None:
    def norm(x):
        mean = x.mean(1, keepdim=True)
        variance = x.var(1, keepdim=True, unbiased=False)
        return (x - mean) * torch.rsqrt(variance + 1e-5)

    check(Function(norm), random(1, 12, *size))


def test_layer_norm_over_channels_has_its_rule() -> None:
    mod = lower(Function(lambda x: x - x.mean(1, keepdim=True)), random(1, 12, 16, 16))
    assert set(rules_of(mod, SSE).values()) == {"schedule_channel_norm"}


@pytest.mark.parametrize("length", [7, 16, 100, 256])
def test_softmax(length) -> None:
    check(nn.Softmax(-1), random(2, 9, length), rule="schedule_row_reduction")


@pytest.mark.parametrize("length", [60, 96])
def test_layer_norm_over_tokens(length) -> None:
    check(nn.LayerNorm(length), random(1, 50, length))


def test_global_average() -> None:
    check(nn.AdaptiveAvgPool2d(1), random(1, 5, 16, 24))


def test_numbers_without_axes() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x / (x.abs().sum(-1).max() * x.abs().sum(-2).max()) * x.mean()

    check(Function(scaled), torch.rand(1, 16, 24))


@pytest.mark.parametrize("size", SIZES)
def test_gelu_gate(size) -> None:
    def gate(x):
        first, second = x.chunk(2, 1)
        return F.gelu(first) * second

    check(Function(gate), random(1, 10, *size), rule="schedule_elementwise")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: x.permute(0, 2, 3, 1).contiguous(),
        lambda x: x.reshape(1, 2, 4, -1).transpose(2, 3).contiguous(),
        lambda x: torch.cat([x, x * 2], 1),
        lambda x: F.silu(x) + torch.tanh(x) + F.softplus(x),
    ],
)
def test_copies_and_activations(function) -> None:
    check(Function(function), random(1, 8, 12, 20), rule="schedule_elementwise")


@pytest.mark.parametrize("target", [SSE, AVX512], ids=lambda target: target.name)
@pytest.mark.parametrize("pixels", [4096, 4100, 1001])
def test_transposition_reads_whole_lines(target: Target, pixels: int) -> None:
    module, x = Function(lambda x: x.transpose(1, 2).contiguous()), random(1, 48, pixels)
    text = script(module, x, target=target)
    line = next(n for n in (16, 13, 10) if pixels % n == 0)
    inner = text.index(f"in range(T.int64({line}))")
    assert (
        text.index("T.parallel(")
        < inner
        < text.index(f"T.vectorized(T.int64({min(target.lanes, 8)}))")
    )
    check(module, x, target=target, rule="schedule_elementwise")


@pytest.mark.parametrize("size", [(4, 4), (8, 8)])
def test_threads_share_rows_where_tiles_are_few(size: tuple[int, int]) -> None:
    module, x = nn.Conv2d(48, 128, 1), random(1, 48, *size)
    assert "T.parallel(T.int64(2))" in script(module, x, target=AVX512)
    check(module, x, target=AVX512, rule="schedule_contraction")


def test_rows_are_shared_by_as_many_tasks_as_needed() -> None:
    assert [row_shares(16, 8, tasks, SSE) for tasks in (1, 2, 8)] == [2, 1, 1]
    assert row_shares(4, 8, 1, SSE) == 1


def test_linear_layer() -> None:
    check(nn.Linear(24, 40), random(1, 50, 24))


@pytest.mark.parametrize("target", [SSE, AVX512, NEON], ids=lambda target: target.name)
@pytest.mark.parametrize("rows", [3, 16, 42, 85, 128, 170])
def test_register_tile_fits_the_register_file(target, rows) -> None:
    height, vectors, lanes = register_tile(box_heights([rows]), 4096, target)
    assert rows % height == 0
    assert 4096 % (vectors * lanes) == 0
    assert height * vectors + vectors + 1 <= target.registers


def test_rows_of_a_tile_are_a_box() -> None:
    assert box_heights([12]) == [12, 6, 4, 3, 2, 1]
    assert box_heights([3, 4]) == [12, 4, 2, 1]
    assert box_heights([2, 3, 4]) == [24, 12, 4, 2, 1]
    assert box_heights([]) == [1]


def test_packed_tiles_divide_the_tiles() -> None:
    assert 40 % packed_tiles(40, 4096, SSE) == 0
    assert packed_tiles(1, 1 << 30, SSE) == 1


def test_aarch64_kernels_are_vectors_without_libm() -> None:
    module = nn.Sequential(nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 16, 3, padding=1))
    mod = lower(module, random(1, 8, 16, 16))
    target = tvm.target.Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "oryon-1"})
    for name, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc):
            scheduled = schedule_func(func, NEON, name.name_hint)
            kernel = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
            assembly = tvm.compile(kernel, target=target).mod.inspect_source("asm")
            assert ".4s" in assembly
            assert "erff" not in assembly
            assert ("fmla\tv" in assembly) or "conv" not in name.name_hint


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("pixels", [256, 1000, 4096])
def test_product_of_rows_transposes_nothing(heads: int, pixels: int) -> None:
    product = Function(lambda q, k: q @ k.transpose(-2, -1))
    inputs = random(heads, 12, pixels), random(heads, 12, pixels)
    assert set(rules_of(lower(product, *inputs), SSE).values()) == {"schedule_gram"}
    check(product, *inputs)


class Gate(nn.Module):
    """Norm, 1x1, depthwise convolutions, gate, 1x1, residual: a feed-forward part."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.window = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = x * torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-5)
        gate, value = self.window(self.into(normed)).chunk(2, 1)
        return x + self.out(nn.functional.gelu(gate) * value)


@pytest.mark.parametrize("target", [SSE, AVX512], ids=lambda target: target.name)
@pytest.mark.parametrize("size", [(8, 8), (12, 20), (5, 7), (16, 48)])
def test_feed_forward_is_two_kernels(target: Target, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    module, x = Gate(6, 10), random(1, 6, *size)
    rules = list(rules_of(lower(module, x), target).values())
    assert rules == ["schedule_contraction", "schedule_contraction"]
    check(module, x)


class SpatialGate(nn.Module):
    """A depthwise convolution, a gate of one channel from all of it, 1x1: DAT's."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.window = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.gate = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.GELU(), nn.Conv2d(1, 1, 1))
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        image = self.window(x)
        return self.out(beside * torch.sigmoid(self.gate(image)) + image)


@pytest.mark.parametrize("size", [(16, 16), (64, 64)])
def test_a_gate_of_one_channel_has_no_window(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    check(SpatialGate(24), random(1, 24, *size), random(1, 24, *size))
