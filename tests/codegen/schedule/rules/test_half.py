"""Kernels on float16 get all lanes of a register where the target computes so."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax, s_tir, tirx

from distillc.codegen.build.library import tvm_target
from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.schedule.rules.base import find_blocks, product_operands, simplify
from distillc.codegen.schedule.rules.half import with_half_lanes
from distillc.codegen.stages import lower
from distillc.frontend.trace import export_program
from distillc.targets.base import Target, get_target
from tests.codegen.schedule.rules.kernels import NEON

ELITE = get_target("snapdragon8elite")


def assembly(module: nn.Module, half: bool, precision: str) -> str:
    target = replace(ELITE, half=half)
    mod = schedule_module(lower(export_program(module, (1, 16, 16, 16)), ELITE, precision), target)
    kernels = tvm.IRModule(
        {
            name: func.with_attr("global_symbol", name.name_hint)
            for name, func in mod.functions_items()
            if isinstance(func, tirx.PrimFunc)
        }
    )
    return str(tvm.compile(kernels, target=tvm_target(target)).mod.inspect_source("asm"))


@pytest.mark.parametrize("half", [True, False])
def test_products_multiply_in_half(half: bool) -> None:
    text = assembly(
        nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 16, 1)), half, "fp16"
    )
    assert bool(re.search(r"fmla\s+v\d+\.8h", text)) == half
    assert not re.search(r"\bbl\s+(__extendhfsf2|__truncsfhf2|expf?|erff?)\b", text)


def test_single_precision_holds_no_half() -> None:
    text = assembly(nn.Conv2d(16, 16, 3, padding=1), True, "fp32")
    assert re.search(r"fmla\s+v\d+\.4s", text)
    assert not re.search(r"fmla\s+v\d+\.8h", text)


def lanes_told(module: nn.Module, target: Target, channels: int) -> set[int]:
    """Return the lanes that a rule is told of, over the kernels of a module that has a product."""
    told = set()

    def rule(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> None:
        told.add(target.lanes)

    mod = lower(export_program(module, (1, channels, 16, 16)), target, "fp16")
    for _, func in mod.functions_items():
        if isinstance(func, tirx.PrimFunc):
            plain = simplify(func)
            if any(product_operands(block) for block in find_blocks(s_tir.Schedule(plain))):
                with_half_lanes(rule)(plain, target, Knobs())
    return told


def test_lanes_are_those_of_the_accumulators() -> None:
    assert lanes_told(nn.Conv2d(16, 16, 1), ELITE, 16) == {8}
    assert lanes_told(nn.Conv2d(16, 16, 1), replace(ELITE, half=False), 16) == {4}
    # A prime number of channels, too many for one sum: float32, though it reads float16.
    prime = nn.Sequential(nn.Conv2d(16, 1021, 1, groups=1), nn.Conv2d(1021, 16, 1))
    assert lanes_told(prime, ELITE, 16) == {8, 4}


def test_the_numbers_of_a_target_without_half_are_the_same() -> None:
    """Only the lanes differ: what is rounded where is decided before."""
    modules = nn.Sequential(nn.Conv2d(3, 300, 3, padding=1), nn.GELU(), nn.Conv2d(300, 3, 1))
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for half in (True, False):
        target = replace(NEON, half=half)
        mod = schedule_module(lower(export_program(modules, x.shape), target, "fp16"), target)
        vm = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
        results.append(vm["main"](tvm.runtime.tensor(x.numpy())).numpy())
    with torch.no_grad():
        wanted = modules(x).numpy()
    for result in results:
        np.testing.assert_allclose(result, wanted, atol=3e-3)
    np.testing.assert_allclose(*results, atol=1e-3)
