"""Long float16 sums: divided into chunks that float32 adds up, and closer for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import relax, tirx

from distillc.codegen.rewrites import half_precision
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.schedule.rules import chunks
from distillc.codegen.schedule.rules.chunks import CHUNK, LEAST, chunk_extent
from distillc.targets.base import Target
from tests.codegen.schedule.rules.kernels import AVX512, NEON, SSE, lower, rules_of

HALF = replace(NEON, half=True)
EPSILON = 2.0**-11


@given(st.integers(1, 4096), st.sampled_from([1, 9, 25, 49]))
def test_chunks_divide_a_sum_and_are_neither_long_nor_short(extent: int, inner: int) -> None:
    size = chunk_extent(extent, inner)
    assert extent % size == 0
    assert size == extent or LEAST <= size * inner <= CHUNK
    if extent * inner <= CHUNK:
        assert size == extent


def positive(channels: int, outputs: int, kernel: int) -> nn.Module:
    """Return a convolution whose sums grow term by term, to about one."""
    torch.manual_seed(channels)
    conv = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=False)
    with torch.no_grad():
        weight = torch.rand_like(conv.weight) * 4 / (channels * kernel * kernel)
        conv.weight.copy_(weight.half().float())  # no rounding but that of the sum
    return conv


def run(module: nn.Module, x: torch.Tensor, target: Target) -> np.ndarray:
    mod = schedule_module(lower(module, x, precision="fp16"), target)
    built = tvm.compile(mod, target="llvm")
    return relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(x.numpy())).numpy()


def image(channels: int, size: Sequence[int]) -> torch.Tensor:
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(1)).half().float()


def error(module: nn.Module, x: torch.Tensor, target: Target) -> float:
    """Return the largest relative difference from torch."""
    with torch.no_grad():
        wanted = module.double()(x.double()).numpy()
    return float(np.abs(run(module.float(), x, target) / wanted - 1).max())


@settings(max_examples=6, deadline=None)
@given(
    channels=st.sampled_from([272, 340, 512, 1022]),
    outputs=st.sampled_from([3, 24, 40]),
    size=st.sampled_from([(8, 8), (6, 10), (16, 12), (5, 7)]),
    target=st.sampled_from([HALF, SSE, AVX512]),
)
def test_products_of_any_shape_are_close(
    channels: int, outputs: int, size: tuple[int, int], target: Target
) -> None:
    """Each addition is off by EPSILON of the sum so far: half the chunk's, on average."""
    module, x = positive(channels, outputs, 1), image(channels, size)
    terms = chunk_extent(channels, 1)
    assert error(module, x, target) <= EPSILON * (0.5 * terms + 4)


@pytest.mark.parametrize(("channels", "kernel"), [(1024, 1), (96, 3)])
def test_chunks_lose_less(channels: int, kernel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = positive(channels, 16, kernel), image(channels, (8, 16))
    divided = error(module, x, HALF)
    monkeypatch.setattr(chunks, "CHUNK", channels * kernel**2)
    monkeypatch.setattr(half_precision, "LONGEST", channels * kernel**2)
    whole = error(module, x, HALF)
    assert divided < 0.5 * whole
    assert divided < 0.006


@pytest.mark.parametrize(
    ("kernel", "rule"), [(1, "schedule_contraction"), (3, "schedule_convolution")]
)
def test_parts_are_half_and_their_sum_is_single(kernel: int, rule: str) -> None:
    mod = lower(positive(512, 16, kernel), image(512, (16, 24)), precision="fp16")
    assert rule in rules_of(mod, HALF).values()
    (func,) = (
        func
        for _, func in schedule_module(mod, HALF).functions_items()
        if isinstance(func, tirx.PrimFunc) and func.attrs["distillc.scheduled"] == rule
    )
    text = func.script()
    assert "_rf" in text  # what sums a chunk
    # Added in float32, and not rounded to float16 first.
    assert 'T.Cast("float32", T.Cast("float16"' not in text
    assert any(
        "local[" in line and "= " in line and '+ T.Cast("float32"' in line
        for line in text.splitlines()
    )


def test_short_sums_and_single_ones_stay_whole() -> None:
    for channels, precision in ((CHUNK, "fp16"), (1024, "fp32")):
        mod = lower(positive(channels, 16, 1), image(channels, (16, 24)), precision=precision)
        scheduled = schedule_module(mod, HALF)
        assert "_rf" not in scheduled.script()
