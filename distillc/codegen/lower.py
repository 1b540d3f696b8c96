"""A torch program to a Relax module of operators."""

from __future__ import annotations

import functools

import torch
import tvm
from tvm.relax.frontend.torch import from_exported_program

from distillc.codegen.operators.fold_constants import constant_values
from distillc.codegen.operators.forms import CONVERSIONS
from distillc.codegen.operators.lowering import Lowering
from distillc.targets.base import Target


def to_relax(program: torch.export.ExportedProgram, target: Target) -> tvm.IRModule:
    """Import a program that `audit` has prepared into Relax; weights become constants.

    Args:
        program: In operators that the importer or `CONVERSIONS` knows.
        target: Decides the shape of the scan kernel.
    """
    context = Lowering(target, functools.cache(functools.partial(constant_values, program)))
    return from_exported_program(
        program,
        unwrap_unit_return_tuple=True,
        run_ep_decomposition=False,
        custom_convert_map={
            operator.__name__: functools.partial(convert, context)
            for operator, convert in CONVERSIONS.items()
        },
    )
