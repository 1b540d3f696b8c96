"""What is done to a torch program before it is imported: only real, known operators remain."""

from __future__ import annotations

import torch
from torch import fx

from distillc.codegen.operators.complex_numbers import split_complex
from distillc.codegen.operators.fold_constants import fold_constants
from distillc.codegen.operators.forms import DECOMPOSITIONS
from distillc.codegen.operators.forms.pooling import WITH_PLACES
from distillc.codegen.operators.forms.sampling import deform_conv2d

Program = torch.export.ExportedProgram


def gives_places(node: fx.Node) -> bool:
    """Whether someone asks the largest elements of windows for their places."""
    return node.target in WITH_PLACES and any(user.args[1] for user in node.users)


def decompose(program: Program) -> Program:
    """Return a program in core operators; lines and modules of its nodes are known still."""
    table = {**torch.export.default_decompositions(), **DECOMPOSITIONS}
    if hasattr(torch.ops.torchvision, "deform_conv2d"):  # where torchvision was imported
        table[torch.ops.torchvision.deform_conv2d.default] = deform_conv2d
    if any(map(gives_places, program.graph.nodes)):
        table |= WITH_PLACES
    with torch.no_grad():
        return program.run_decompositions(table)


def prepare(program: Program) -> Program:
    """Return a decomposed program on real numbers, with everything constant computed.

    Args:
        program: Changed in place.

    Raises:
        NotImplementedError: An operator has no form on real numbers; see `lacks_form`.
    """
    with torch.no_grad():
        real = split_complex(program)
        return fold_constants(program if real is program else decompose(real))
