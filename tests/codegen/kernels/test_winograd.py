"""Winograd's form of a 3x3 convolution, against torch in float64."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.builder import built_from
from distillc.codegen.kernels.winograd import (
    WinogradSizes,
    tile_lanes,
    transform_weights,
    winograd_kernel,
)
from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.rebuilt import schedule_winograd
from distillc.targets.base import Target, get_target

HOST = get_target("host")
SSE = replace(HOST, vector_bits=128, registers=16)
ELITE = get_target("snapdragon8elite")


def check(sizes: WinogradSizes, target: Target, knobs: Knobs | None = None) -> None:
    """Assert that a kernel's results are the convolution's."""
    random = np.random.default_rng(0)
    shape = (sizes.height, sizes.width)
    x = random.normal(size=(sizes.channels, *shape)).astype("float32")
    weight = random.normal(size=(sizes.outputs, sizes.channels, 3, 3)).astype("float32")
    bias = random.normal(size=sizes.outputs).astype("float32")
    added = random.normal(size=(sizes.outputs, *shape)).astype("float32")
    expected = F.conv2d(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), padding=1)
    expected = expected.numpy() + (bias[:, None, None] * sizes.biased + added * sizes.added)
    operands = [x, transform_weights(weight)]
    operands += [bias] * sizes.biased + [added.reshape(sizes.outputs, -1)] * sizes.added
    operands[0] = x.reshape(sizes.channels, -1)
    y = tvm.runtime.tensor(np.zeros((sizes.outputs, sizes.height * sizes.width), "float32"))
    kernel = winograd_kernel(sizes, target, knobs).with_attr("global_symbol", "main")
    built = tvm.compile(tvm.IRModule({"main": kernel}), tvm_target(HOST))
    built["main"](*map(tvm.runtime.tensor, operands), y)
    result = y.numpy().reshape(expected.shape)
    assert np.abs(result - expected).max() < 2e-5 * np.abs(expected).max()


@given(
    st.integers(1, 7), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5),
    st.integers(0, 1), st.integers(0, 1), st.sampled_from([HOST, SSE]),
)  # fmt: skip
@settings(max_examples=8, deadline=None)
def test_any_size(channels, outputs, lines, columns, biased, added, target) -> None:
    check(WinogradSizes(channels, outputs, 4 * lines, 16 * columns, biased, added), target)


def test_many_channels() -> None:
    check(WinogradSizes(64, 48, 16, 64, 1, 1), HOST)


@pytest.mark.parametrize("record", [{"tiles": 1}, {"tiles": 4, "vectors": 2, "height": 3}])
def test_every_knob_leaves_the_numbers(record) -> None:
    check(WinogradSizes(5, 6, 8, 64, 1, 0), SSE, Knobs(record))


def test_its_record_builds_it_anew() -> None:
    kernel, knobs = winograd_kernel(WinogradSizes(5, 6, 8, 64, 1, 1), SSE), Knobs({"vectors": 1})
    again = schedule_winograd(kernel, SSE, knobs)
    assert again is not None
    assert built_from(again.mod["main"]) == built_from(kernel)
    assert again.mod["main"].script() != kernel.script()
    assert set(knobs.values) == {"tiles", "vectors", "height"}


@pytest.mark.parametrize("width", [16, 32])
def test_vectors_of_some_lines(width: int) -> None:
    check(WinogradSizes(5, 6, 32, width, 1, 1), HOST)


def test_lanes_are_parts_of_a_line_or_whole_lines() -> None:
    assert [tile_lanes(64, width, 16) for width in (64, 32, 16, 80, 24, 22)] == [
        16,
        16,
        16,
        4,
        0,
        0,
    ]
    assert [tile_lanes(height, 32, 16) for height in (8, 12, 10)] == [16, 8, 0]
    assert [tile_lanes(64, width, 4) for width in (64, 8, 4)] == [4, 4, 4]


def test_aarch64_multiplies_by_element() -> None:
    kernel = winograd_kernel(WinogradSizes(8, 12, 8, 64, 1, 0), ELITE)
    kernel = kernel.with_attr("global_symbol", "main")
    module = tvm.IRModule({"main": kernel})
    text = str(tvm.compile(module, tvm_target(ELITE)).mod.inspect_source("asm"))
    assert len(re.findall(r"fmla\s+v\d+\.4s, v\d+\.4s, v\d+\.s\[", text)) > 16
