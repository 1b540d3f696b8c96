"""Programs before and after they are prepared for import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import tvm
from torch import nn
from tvm import relax

from distillc.codegen.build.library import tvm_target
from distillc.codegen.operators.prepare import decompose, prepare
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.stages import lower
from distillc.targets.base import get_target
from tests.codegen.schedule.rules.kernels import Function

HOST = get_target("host")


def check_prepared(
    function: nn.Module | Callable[..., torch.Tensor], x: torch.Tensor
) -> Counter[str]:
    """Assert that preparing changes no number and leaves the program; return its operators."""
    module = function if isinstance(function, nn.Module) else Function(function)
    with torch.no_grad():
        program = torch.export.export(module.eval(), (x,))
        before = str(program.graph)
        prepared = prepare(decompose(program))
        expected = module(x)
        torch.testing.assert_close(prepared.module()(x), expected, rtol=1e-4, atol=1e-4)
    assert str(program.graph) == before
    return operators(prepared)


def operators(program: torch.export.ExportedProgram) -> Counter[str]:
    """Count the operators of a program by name."""
    return Counter(
        node.target._schema.name.split("::")[1]
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    )


def check_compiled(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, error: float = 1e-5
) -> None:
    """Assert that compiled code gives what torch gives, relative and absolute."""
    module = Function(function)
    mod = schedule_module(lower(torch.export.export(module, (x,)), HOST), HOST)
    vm = relax.VirtualMachine(tvm.compile(mod, tvm_target(HOST)), tvm.cpu())
    y = torch.from_numpy(vm["main"](tvm.runtime.tensor(x.numpy())).numpy())
    torch.testing.assert_close(y, function(x), rtol=error, atol=error, equal_nan=True)
