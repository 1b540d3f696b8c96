"""The TIR kernel computes what `torch.ops.distillc.axial_scan` does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.axial_scan import Sizes, axial_scan_kernel, cut_lines
from distillc.codegen.kernels.builder import built_from
from distillc.codegen.kernels.polynomials import rewrite_math
from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.schedule.rules.rebuilt import schedule_axial_scan
from distillc.codegen.stages import lower
from distillc.frontend.trace import export_program
from distillc.surrogates.axial_scan import DIRECTIONS, axial_scan
from distillc.targets.base import Target, get_target
from tests.surrogates.test_axial_scan import operands

HOST = get_target("host")
SSE = replace(HOST, vector_bits=128)


def check(
    sizes: tuple[int, int, int, int, int, int, int],
    codes: str,
    target: Target = HOST,
    knobs: Knobs | None = None,
) -> None:
    """Compare for (b, heads, channels of a head, m, n, h, w) and directions."""
    b, g, p, m, n, h, w = sizes
    inputs = operands(sizes)
    kernel = axial_scan_kernel(
        Sizes(b, g * p, h, w, g, m, n, tuple(map(int, codes))), target, knobs
    )
    function = rewrite_math(kernel.with_attr("global_symbol", "main"))
    library = tvm.compile(tvm.IRModule({"main": function}), tvm_target(target))
    y = tvm.runtime.tensor(np.full(inputs[0].shape, np.nan, np.float32))
    library["main"](*(tvm.runtime.tensor(each.numpy()) for each in inputs), y)
    wanted = axial_scan(*inputs, ",".join(DIRECTIONS[int(code)] for code in codes))
    np.testing.assert_allclose(y.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", [HOST, SSE], ids=["host", "sse"])
@pytest.mark.parametrize("code", "0123")
def test_every_direction_and_width(code: str, target: Target) -> None:
    check((1, 2, 4, 1, 2, 37, 45), code, target)


@pytest.mark.parametrize("vectors", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_knobs_change_no_number(vectors: int, channels: int) -> None:
    check((1, 1, 8, 1, 3, 5, 70), "0", HOST, Knobs({"vectors": vectors, "channels": channels}))


@pytest.mark.parametrize(("target", "channels"), [(HOST, 1), (HOST, 8), (SSE, 1), (SSE, 2)])
def test_rows_walk_several_channels_at_once(target: Target, channels: int) -> None:
    check((1, 1, 8, 1, 3, 18, 21), "1", target, Knobs({"row_channels": channels}))


@pytest.mark.parametrize(("width", "threads", "vectors"), [(64, 2, 2), (64, 4, 1), (32, 2, 1)])
def test_strips_are_as_wide_as_leaves_no_thread_idle(
    width: int, threads: int, vectors: int
) -> None:
    target, knobs = replace(HOST, vector_bits=512, threads=threads), Knobs()
    axial_scan_kernel(Sizes(1, 4, 6, width, 1, 1, 1, (0,)), target, knobs)
    assert knobs.values["vectors"] == vectors


def test_no_knob_is_searched_that_changes_nothing() -> None:
    for codes, known in ((0, 2), {"vectors", "channels"}), ((1, 3), {"row_channels"}):
        knobs = Knobs()
        axial_scan_kernel(Sizes(1, 4, 6, 6, 2, 1, 1, codes), HOST, knobs)
        assert set(knobs.space) == known


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 2),
    codes=st.sampled_from(["0", "13", "0123", "22"]),
    share=st.integers(1, 2),
    size=st.sampled_from([1, 3, 16]),
    groups=st.integers(1, 3),
    states=st.sampled_from([1, 2, 9]),
    sides=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_any_shape(
    batch: int,
    codes: str,
    share: int,
    size: int,
    groups: int,
    states: int,
    sides: tuple[int, int],
) -> None:
    check((batch, share * len(codes), size, groups, states, *sides), codes)


def test_strips_hold_every_line_once() -> None:
    for lines in range(1, 70):
        found = []
        for strips in cut_lines(lines, 16, 2):
            width = strips.vectors * strips.lanes
            found += range(strips.start, strips.start + strips.number * width)
        assert found == list(range(lines))


class Scan(nn.Module):
    """The operator, fed from one image."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Parameter(-torch.rand(4))
        self.skip = nn.Parameter(torch.rand(8))
        self.bias = nn.Parameter(torch.rand(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, delta, weights = x.split([8, 4, 4], 1)
        weights = weights.unflatten(1, (2, 2))
        given = (self.rates, weights, weights + 1, self.skip, self.bias)
        return axial_scan(u, delta, *given, "down,left")


def test_it_passes_the_whole_lowering_and_its_record_builds_it_anew() -> None:
    torch.manual_seed(0)
    module, x = Scan().eval(), torch.rand(1, 16, 6, 20)
    lowered = lower(export_program(module, tuple(x.shape)), HOST)
    (scan,) = [func for func in lowered.functions.values() if built_from(func)]
    again = schedule_axial_scan(scan, HOST, Knobs({"channels": 1}))
    assert again is not None
    assert built_from(again.mod["main"]) == built_from(scan)
    assert again.mod["main"].script() != scan.script()
    vm = tvm.relax.VirtualMachine(
        tvm.compile(schedule_module(lowered, HOST), tvm_target(HOST)), tvm.cpu()
    )
    y = vm["main"](tvm.runtime.tensor(x.numpy())).numpy()
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
