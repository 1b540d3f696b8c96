"""Relax modules before and after a rewrite: made from torch, run without our schedules, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax, tirx
from tvm.ir import Op
from tvm.relax.frontend.torch import from_exported_program

from distillc.codegen.rewrites.kernel_kinds import KernelKind, kernel_kind
from tests.codegen.schedule.rules.kernels import Function


def graph(function: nn.Module | Callable[..., torch.Tensor], *xs: torch.Tensor) -> tvm.IRModule:
    """Import a function as the compiler does before its rewrites."""
    module = function if isinstance(function, nn.Module) else Function(function)
    with torch.no_grad():
        program = torch.export.export(module.eval(), xs).run_decompositions()
    mod = from_exported_program(program, unwrap_unit_return_tuple=True)
    steps = (relax.transform.DecomposeOpsForInference(), relax.transform.CanonicalizeBindings())
    return tvm.ir.transform.Sequential(list(steps))(mod)


def kernels(mod: tvm.IRModule) -> tvm.IRModule:
    """Lower a graph to kernels as TVM fuses them."""
    steps = relax.transform
    return tvm.ir.transform.Sequential(
        [
            steps.FoldConstant(),
            steps.LegalizeOps(),
            steps.AnnotateTIROpPattern(),
            steps.FoldConstant(),
            steps.FuseOps(),
            steps.FuseTIR(),
        ]
    )(mod)


def kinds(function: nn.Module | Callable[..., torch.Tensor], *xs: torch.Tensor) -> list[KernelKind]:
    """Return the kinds of a function's kernels, in the order of their calls."""
    mod = kernels(graph(function, *xs))
    return [kernel_kind(mod[call.args[0]]) for call in calls(mod)]


def calls(mod: tvm.IRModule) -> list[relax.Call]:
    """Return the calls of `main`, in order."""
    values = [b.value for block in mod["main"].body.blocks for b in block.bindings]
    return [value for value in values if isinstance(value, relax.Call)]


def operators(mod: tvm.IRModule) -> Counter[str]:
    """Count the operators that `main` calls."""
    names = [call.op.name for call in calls(mod) if isinstance(call.op, Op)]
    return Counter(name.removeprefix("relax.") for name in names)


def run(mod: tvm.IRModule, *xs: torch.Tensor) -> np.ndarray[Any, Any]:
    """Compile a module without schedules and run it."""
    built = tvm.compile(relax.transform.LegalizeOps()(mod), target="llvm")
    result = relax.VirtualMachine(built, tvm.cpu())["main"](
        *[tvm.runtime.tensor(x.numpy()) for x in xs]
    )
    return result.numpy()


def check_same(
    rewrite: Callable[[tvm.IRModule], tvm.IRModule],
    function: nn.Module | Callable[..., torch.Tensor],
    *xs: torch.Tensor,
) -> tvm.IRModule:
    """Assert that a rewrite leaves the numbers and its input as they were; return its result."""
    before = graph(function, *xs)
    text = before.script()
    after = rewrite(before)
    assert before.script() == text
    relax.analysis.well_formed(after)  # raises where it is not
    np.testing.assert_allclose(run(after, *xs), run(before, *xs), rtol=1e-4, atol=1e-4)
    return after


def check_nothing(
    rewrite: Callable[[tvm.IRModule], tvm.IRModule],
    function: nn.Module | Callable[..., torch.Tensor],
    *xs: torch.Tensor,
) -> None:
    """Assert that a rewrite leaves a function as it is."""
    before = graph(function, *xs)
    tvm.ir.assert_structural_equal(rewrite(before), before)


def primitive(mod: tvm.IRModule) -> int:
    """Count the kernels of a module."""
    return sum(isinstance(func, tirx.PrimFunc) for func in mod.functions.values())
