"""Kernels on float16 get all lanes of a register where the target computes so."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import tvm
from torch import nn
from tvm import tirx

from distillc.codegen.compile import tvm_target
from distillc.codegen.lower import lower
from distillc.codegen.schedule import schedule_module
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target

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
