"""Programs before and after they are prepared for import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from distillc.codegen.operators.prepare import decompose, prepare
from tests.codegen.schedule.rules.kernels import Function


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
