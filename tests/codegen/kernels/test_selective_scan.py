"""The TIR scan kernel computes what `torch.ops.distillc.selective_scan` does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import tirx

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.builder import built_from
from distillc.codegen.kernels.polynomials import rewrite_math
from distillc.codegen.kernels.selective_scan import (
    Rates,
    selective_scan_kernel,
    tile_width,
)
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.stages import lower
from distillc.frontend.trace import export_program
from distillc.surrogates.selective_scan import selective_scan
from distillc.targets.base import get_target
from tests.codegen.selective import SelectiveScan

HOST = get_target("host")


def operands(
    batch: int, channels: int, length: int, states: int, groups: int
) -> list[torch.Tensor]:
    """u, delta, A, B, C, D, delta_bias."""
    random = torch.Generator().manual_seed(channels * length + states)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    weights = (batch, groups, states, length)
    return [
        draw(batch, channels, length),
        draw(batch, channels, length),
        -draw(channels, states).exp(),
        draw(*weights),
        draw(*weights),
        draw(channels),
        draw(channels),
    ]


def run(kernel: tirx.PrimFunc, inputs: list[torch.Tensor]) -> np.ndarray:
    function = rewrite_math(kernel.with_attr("global_symbol", "main"))
    library = tvm.compile(tvm.IRModule({"main": function}), tvm_target(HOST))
    y = tvm.runtime.tensor(np.empty(inputs[0].shape, np.float32))
    library["main"](*(tvm.runtime.tensor(each.contiguous().numpy()) for each in inputs), y)
    return y.numpy()


def check(
    batch: int,
    channels: int,
    length: int,
    states: int,
    groups: int,
    softplus: bool,
    reverse: bool,
    rates: Rates = Rates.OWN,
) -> None:
    u, delta, A, B, C, D, bias = operands(batch, channels, length, states, groups)
    if rates is not Rates.OWN:
        A = A[:, :1] * (1 if rates is Rates.EQUAL else torch.arange(1, states + 1))
        A = A.expand(-1, states)
        assert Rates.of(A.numpy()) is rates
    if not softplus:  # step sizes are positive: the recurrence decays
        delta, bias = delta.abs(), bias.abs()
    kernel = selective_scan_kernel(
        batch, channels, length, states, groups, softplus, reverse, HOST, rates
    )
    y = run(kernel, [u, delta, A, B, C, D, bias])
    wanted = selective_scan(u, delta, A, B, C, D, None, bias, softplus, reverse)
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("states", [1, 2, 4, 16])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_and_direction(states: int, reverse: bool) -> None:
    check(1, 16, 40, states, 1, True, reverse)


@pytest.mark.parametrize("states", [2, 3, 4, 8, 9, 16])
@pytest.mark.parametrize("rates", [Rates.EQUAL, Rates.MULTIPLES])
def test_one_exponential_serves_all_states(states: int, rates: Rates) -> None:
    check(1, 16, 40, states, 1, True, False, rates)


@pytest.mark.parametrize("groups", [2, 3])
def test_every_group_has_weights_of_its_own(groups: int) -> None:
    check(2, 12, 24, 2, groups, True, False)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 2),
    share=st.sampled_from([1, 3, 5, 7, 8, 24]),
    length=st.sampled_from([1, 2, 17, 64]),
    states=st.sampled_from([1, 2, 4]),
    groups=st.sampled_from([1, 2]),
    softplus=st.booleans(),
    reverse=st.booleans(),
)
def test_any_shape(
    batch: int,
    share: int,
    length: int,
    states: int,
    groups: int,
    softplus: bool,
    reverse: bool,
) -> None:
    check(batch, share * groups, length, states, groups, softplus, reverse)


def test_steps_far_from_zero_neither_overflow_nor_vanish() -> None:
    u, delta, A, B, C, D, bias = operands(1, 8, 16, 2, 1)
    delta = delta * 60
    kernel = selective_scan_kernel(1, 8, 16, 2, 1, True, False, HOST)
    y = run(kernel, [u, delta, A, B, C, D, bias])
    wanted = selective_scan(u, delta, A, B, C, D, None, bias, True, False)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(y, wanted.numpy(), rtol=1e-4, atol=1e-3)


class Scan(nn.Module):
    """The operator alone, with or without its optional operands."""

    def __init__(self, skip: bool, gate: bool, bias: bool, groups: bool) -> None:
        super().__init__()
        self.gate = gate
        self.groups = groups
        self.rates = nn.Parameter(-torch.rand(6, 2))
        self.skip = nn.Parameter(torch.rand(6)) if skip else None
        self.bias = nn.Parameter(torch.rand(6)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = x.flatten(2)
        weights = u[:, :4].reshape(1, 2, 2, -1) if self.groups else u[:, :2]
        gate = u * 2 if self.gate else None
        args = (u, u.abs(), self.rates, weights, weights + 1, self.skip, gate, self.bias)
        return selective_scan(*args, False, True).reshape(x.shape)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_optional_operands_through_the_whole_lowering(skip: bool, gate: bool, bias: bool) -> None:
    torch.manual_seed(0)
    module = Scan(skip, gate, bias, groups=skip).eval()
    x = torch.rand(1, 6, 4, 8)
    mod = schedule_module(lower(export_program(module, tuple(x.shape)), HOST), HOST)
    vm = tvm.relax.VirtualMachine(tvm.compile(mod, tvm_target(HOST)), tvm.cpu())
    y = vm["main"](tvm.runtime.tensor(x.numpy())).numpy()
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("equal", "rates"), [(False, Rates.MULTIPLES), (True, Rates.EQUAL)])
def test_the_rates_of_a_network_are_recognised(equal: bool, rates: Rates) -> None:
    scanning = SelectiveScan(8, state=4, equal=equal).eval()
    mod = lower(export_program(scanning, (1, 8, 4, 8)), HOST)
    (scan,) = [func for func in mod.functions.values() if built_from(func)]
    built = built_from(scan)
    assert built is not None
    assert built[1][-1] == rates


def test_channels_share_vectors_and_feed_the_threads() -> None:
    wide = replace(HOST, vector_bits=512, threads=2)
    assert tile_width(48, 1024, wide) == 16
    assert tile_width(16, 1024, wide) == 8  # two tiles for two threads
    assert tile_width(7, 1024, wide) == 1
    assert tile_width(6, 1024, replace(wide, vector_bits=128)) == 2
