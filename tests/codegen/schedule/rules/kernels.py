"""Kernels as Relax makes them, and the machinery to run a scheduled one against numpy or torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax, tirx
from tvm.relax.frontend.torch import from_exported_program

from distillc.codegen.schedule.apply_rules import schedule_func, schedule_module
from distillc.codegen.stages import fuse
from distillc.targets.base import Target

# Lanes and registers of three kinds of CPU; the tests run all of them on the host's LLVM.
SSE = Target(
    name="sse",
    triple="x86_64-linux-gnu",
    cpu="x86-64",
    features=(),
    vector_bits=128,
    registers=16,
    threads=2,
    l2_kib=512,
    link=None,
    devices=(),
)
AVX512 = replace(SSE, name="avx512", cpu="znver4", vector_bits=512, registers=32, l2_kib=1024)
NEON = replace(
    SSE,
    name="neon",
    triple="aarch64-linux-gnu",
    cpu="oryon-1",
    registers=32,
    l2_kib=12288,
)


class Function(nn.Module):
    """A module around a function."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def lower(
    module: nn.Module, *inputs: torch.Tensor, precision: str = "fp32", target: Target = SSE
) -> tvm.IRModule:
    """Import a module and fuse its operators, as the compiler does before it schedules."""
    program = torch.export.export(module.eval(), inputs)
    mod = from_exported_program(program, unwrap_unit_return_tuple=True)
    return fuse(mod, target, precision)


def rules_of(mod: tvm.IRModule, target: Target) -> dict[str, str]:
    """Return the rule that took each kernel."""
    return {
        name.name_hint: schedule_func(func, target, name.name_hint).attrs["distillc.scheduled"]
        for name, func in mod.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }


def check(module: nn.Module, *inputs: torch.Tensor, target: Target = SSE, rule: str = "") -> None:
    """Compile a module with our schedules; assert its rule and that it equals torch to 1e-4."""
    mod = lower(module, *inputs, target=target)
    if rule:
        assert rule in rules_of(mod, target).values()
    built = tvm.compile(schedule_module(mod, target), target="llvm")
    vm = relax.VirtualMachine(built, tvm.cpu())
    result = vm["main"](*[tvm.runtime.tensor(x.numpy()) for x in inputs])
    with torch.no_grad():
        expected = module(*inputs).numpy()
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-4)


def random(*shape: int) -> torch.Tensor:
    """Normal numbers, the same for the same shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
