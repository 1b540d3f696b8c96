"""schedule_module: every kernel of a network gets a schedule, and the network's numbers stay."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax, s_tir, tirx

from distillc.codegen.kernels.builder import SCHEDULED
from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule import apply_rules
from distillc.codegen.schedule.apply_rules import schedule_func, schedule_module
from distillc.codegen.schedule.rules import Entry, contraction
from distillc.codegen.schedule.rules.base import divisors
from distillc.errors import LoweringError
from distillc.targets.base import Target
from tests.codegen.schedule.rules.kernels import AVX512, NEON, SSE, Function, check, lower, random


def kernels(mod: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    return {n.name_hint: f for n, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)}


def test_restormer_falls_through_to_no_rule(tiny_restormer: nn.Module) -> None:
    mod = lower(tiny_restormer, random(1, 3, 32, 48))
    taken = {name: f.attrs[SCHEDULED] for name, f in kernels(schedule_module(mod, SSE)).items()}
    assert len(taken) > 20
    assert [name for name, rule in taken.items() if rule == "schedule_fallback"] == []


@pytest.mark.parametrize("size", [(32, 48), (40, 56)])
def test_restormer_equals_torch(tiny_restormer: nn.Module, size: tuple[int, int]) -> None:
    check(tiny_restormer, torch.rand(1, 3, *size))


def test_a_padded_image_of_one_row() -> None:
    """Its rows are merged with nothing: a rule asked for lines that are not there."""
    check(nn.Conv2d(7, 3, (5, 1), stride=(3, 1), padding=(2, 0)), torch.rand(1, 7, 1, 4))


def test_products_that_give_one_number() -> None:
    check(Function(lambda x: (torch.ones(2) @ x.flatten()) + x), torch.rand(1, 1, 1, 2))


def test_numbers_that_several_passes_over_channels_read() -> None:
    def normalized(x: torch.Tensor) -> torch.Tensor:
        y = x * x.mean()
        return y / (y.pow(2).mean(1, keepdim=True) + x.mean())

    check(Function(normalized), torch.rand(1, 3, 4, 8))


def test_a_layer_of_one_channel_after_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.LayerNorm(1), nn.Conv2d(1, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x.flatten(2).mT).mT.reshape(x.shape)
            return self.conv(x / (x.pow(2).mean(1, keepdim=True) + 0.01).sqrt())

    check(Tokens(), torch.rand(1, 1, 9, 9))


MATRICES = (torch.rand(6, 20, 80), torch.rand(1, 80, 6))
PRODUCTS = Function(lambda x, y: x @ y)


def test_tiles_of_rows_do_not_end_within_a_matrix() -> None:
    """Tiles of 30 rows, in matrices of 20, wrote over each other's results."""
    check(PRODUCTS, *MATRICES, target=AVX512, rule="schedule_contraction")


def test_rows_of_a_volume_that_become_those_of_a_matrix() -> None:
    """The copy of a tile of 10 x 3 results read the next tile's, as memory happened to be."""
    conv = nn.Conv3d(1, 3, (3, 2, 1), padding=(1, 1, 0))
    linear = nn.Linear(3, 5)
    volumes = Function(lambda x: linear(conv(x[:, None]).flatten(1, 2)))
    check(volumes, torch.rand(1, 1, 9, 3), target=AVX512, rule="schedule_convolution")


def test_a_volume_of_one_channel_behind_a_convolution() -> None:
    conv = nn.Conv3d(1, 3, (1, 3, 1), padding=(0, 1, 0))
    check(Function(lambda x: conv(x[:, None])), torch.rand(1, 12, 1, 4), target=AVX512)


def test_windows_with_strides_keep_their_rule() -> None:
    conv = nn.Conv2d(1, 3, (5, 1), stride=2, padding=(2, 0))
    check(conv, torch.rand(3, 1, 11, 8), target=NEON, rule="schedule_convolution")


def test_a_schedule_that_leaves_values_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    monkeypatch.setattr(apply_rules, "_warn_once", reasons.append)
    monkeypatch.setattr(contraction, "box_heights", lambda extents: [*divisors(prod(extents))])
    check(PRODUCTS, *MATRICES, target=AVX512)
    assert "matmul_intermediate_local would read" in "".join(reasons)


def test_slices_that_regions_cannot_describe() -> None:
    """TVM takes a slice with steps for more than it reads; there was no rule left for it."""

    conv = nn.Conv2d(1, 1, 1, bias=False)

    def corner(x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.interpolate(conv(x), size=(16, 3), mode="bilinear")
        return torch.cat([x, y], 1)[:, 0:-1, 7:11:3, 2:3]

    check(Function(corner), torch.rand(1, 1, 16, 3), target=AVX512)


def test_a_row_of_truth_values_before_a_norm() -> None:
    """They were copied in vectors, which LLVM does not have of them."""
    other, mask = torch.rand(1, 1, 1, 11), torch.rand(1, 1, 1, 11) > 0.5

    def normed(x: torch.Tensor) -> torch.Tensor:
        y = torch.where(mask, other, x)
        return y * torch.rsqrt(y.square().mean(-2, keepdim=True) + 1e-6)

    check(Function(normed), torch.rand(1, 5, 13, 11), target=AVX512)


def test_input_module_is_left_as_it_was() -> None:
    mod = lower(nn.Conv2d(4, 4, 1, bias=False), random(1, 4, 8, 8))
    before = kernels(mod)
    schedule_module(mod, SSE)
    for name, func in kernels(mod).items():
        tvm.ir.assert_structural_equal(func, before[name])


def test_signature_stays() -> None:
    mod = lower(nn.Conv2d(4, 6, 1, bias=False), random(1, 4, 8, 8))
    for name, func in kernels(schedule_module(mod, SSE)).items():
        shapes = [list(map(int, p.ty.shape)) for p in func.params]
        assert shapes == [list(map(int, p.ty.shape)) for p in kernels(mod)[name].params]


def test_scheduled_kernel_keeps_its_loops() -> None:
    mod = lower(nn.Conv2d(4, 4, 1, bias=False), random(1, 4, 8, 8))
    func = next(iter(kernels(mod).values())).with_attr(SCHEDULED, "by hand")
    tvm.ir.assert_structural_equal(schedule_func(func, SSE, "kernel"), func)


def test_kernel_that_no_rule_takes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_rules, "RULES", ())
    mod = lower(nn.Conv2d(4, 4, 1, bias=False), random(1, 4, 8, 8))
    with pytest.raises(LoweringError, match="conv2d"):
        schedule_module(mod, SSE)


@pytest.mark.parametrize("failure", [s_tir.ScheduleError, tvm.error.InternalError])
def test_rule_that_fails_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: type[Exception]
) -> None:
    apply_rules._warn_once.cache_clear()

    def broken(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule:
        sch = s_tir.Schedule(func)
        sch.vectorize(sch.get_loops(sch.get_child_blocks(sch.get_sblock("root"))[0])[-1])
        raise failure("Error message: not so")

    monkeypatch.setattr(apply_rules, "RULES", (Entry("broken", broken), *apply_rules.RULES))
    mod = lower(nn.Conv2d(4, 4, 1, bias=False), random(1, 4, 8, 8))
    taken = {f.attrs[SCHEDULED] for f in kernels(schedule_module(mod, SSE)).values()}
    assert taken == {"schedule_contraction"}
    assert "broken could not schedule conv2d; a simpler schedule takes over" in caplog.text
    schedule_module(mod, SSE)
    assert caplog.text.count("broken could not schedule") == 1  # however often it happens


def test_a_bug_in_a_rule_is_not_taken_for_a_kernel_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr(apply_rules, "RULES", (Entry("broken", broken), *apply_rules.RULES))
    with pytest.raises(ValueError, match="unpack"):
        schedule_module(lower(nn.Conv2d(4, 4, 1), random(1, 4, 8, 8)), SSE)


def test_scheduled_module_runs_twice_alike() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    x = random(1, 4, 16, 16)
    vm = relax.VirtualMachine(
        tvm.compile(schedule_module(lower(conv, x), SSE), target="llvm"), tvm.cpu()
    )
    results = [vm["main"](tvm.runtime.tensor(x.numpy())).numpy() for _ in range(2)]
    assert np.array_equal(*results)
