"""Whether every operator of a program can be compiled, before anything else is done."""

from __future__ import annotations

import logging

import torch
from torch import fx
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from distillc.codegen.operators.complex_numbers import is_split, lacks_form
from distillc.codegen.operators.forms import CONVERSIONS
from distillc.codegen.operators.forms.writes import is_other_write
from distillc.codegen.operators.prepare import decompose, prepare
from distillc.errors import LoweringError, compiler_errors
from distillc.frontend.graph import activations
from distillc.frontend.static_form import is_dynamic
from distillc.frontend.values.places import is_theirs
from distillc.quiet import quiet_libraries

log = logging.getLogger(__name__)

RECURRENT = {"lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"}
MOST_STEPS = 64

EXTERNAL = {
    *("sort.default", "argsort.default", "topk.default", "median.default", "median.dim"),
    *("scatter.src", "scatter.value", "index.Tensor", "masked_select.default"),
    "grid_sampler_2d.default",
}
"""What the importer knows but no schedule rule: sorted, written or read at computed places."""

REMEDIES = (
    (
        "linalg",
        "of a matrix that does not depend on the image, compute it in `__init__`; else write out "
        "the closed form of small ones (2x2, 3x3), or a few steps of an iteration such as Newton's",
    ),
    (
        "histc",
        "count by comparing: "
        "`((x.unsqueeze(-1) >= edges[:-1]) & (x.unsqueeze(-1) < edges[1:])).sum(...)`",
    ),
)
"""What to do instead of operators whose names hold a word."""


@quiet_libraries()
def audit(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program as it is imported, once every operator of it is known.

    Raises:
        LoweringError: Some cannot; the message lists all of them with module path and source line.
    """
    _refuse_dynamic(program)
    _refuse_recurrent(program)
    _say_types(program)
    with compiler_errors("the network cannot be brought to core operators"):
        program = decompose(program)
    _refuse_random(program)
    known = {*ExportedProgramImporter().convert_map} - EXTERNAL
    known |= {each.__name__ for each in CONVERSIONS}
    missing: dict[str, list[str]] = {}
    for node in activations(program):
        name = getattr(node.target, "__name__", "")
        if node.op == "call_function" and (
            lacks_form(node) if is_split(node) else name not in known or is_other_write(node)
        ):
            missing.setdefault(name, []).append(_place(node))
    if missing:
        said = {remedy: None for name in missing for word, remedy in REMEDIES if word in name}
        raise LoweringError(
            "operators that cannot be compiled yet:" + _listed(missing),
            hint="; ".join(said)
            or "rewrite these lines with other operators, or report the network",
        )
    with compiler_errors("what is constant in the network cannot be computed"):
        return prepare(program)


def _refuse_dynamic(program: torch.export.ExportedProgram) -> None:
    """Refuse operators whose results have another size for every image."""
    missing: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if is_dynamic(node) and not any(map(is_dynamic, node.all_input_nodes)):
            missing.setdefault(getattr(node.target, "__name__", ""), []).append(_place(node))
    if missing:
        raise LoweringError(
            "operators whose results depend in size on the values of the image:" + _listed(missing),
            hint="keep the size (`torch.where(mask, x, y)`): a masked read compiles where only "
            "elementwise operators stand between it and a write with the same mask; or fix them as "
            "they are for one image: --specialise IMAGE",
        )


def _refuse_recurrent(program: torch.export.ExportedProgram) -> None:
    """Refuse recurrent layers over long sequences: each step would be kernels of its own."""
    found: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if name in RECURRENT:
            x, *_, batch_first = node.args
            if x.meta["val"].shape[1 if batch_first else 0] > MOST_STEPS:
                found.setdefault(name, []).append(_place(node))
    if found:
        raise LoweringError(
            f"recurrent layers over more than {MOST_STEPS} steps cannot be compiled:"
            + _listed(found),
            hint="`torch.ops.distillc.selective_scan` computes a recurrence in one kernel",
        )


def _refuse_random(program: torch.export.ExportedProgram) -> None:
    """Refuse operators that draw numbers: no two runs agree, and none can be verified."""
    found: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if node.users and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            found.setdefault(node.target.__name__, []).append(_place(node))
    if found:
        raise LoweringError(
            "operators that draw random numbers cannot be compiled:" + _listed(found),
            hint="leave noise out of what restores (`F.dropout` needs `training=self.training`), "
            "or draw it once in `__init__` and keep it in a buffer",
        )


def _say_types(program: torch.export.ExportedProgram) -> None:
    """Warn of numbers that are not computed in the type that torch computes them in."""
    said: set[torch.dtype] = set()
    for node in program.graph.nodes:
        value = node.meta.get("val")
        kind = value.dtype if isinstance(value, torch.Tensor) else None
        name = getattr(node.target, "__name__", "")
        if kind == torch.float64 and not name.lstrip("_").startswith(_IN_SINGLE):
            continue
        if kind in _OTHERWISE and kind not in said:
            said.add(kind)
            log.warning("%s, first in %s: %s", kind, _place(node), _OTHERWISE[kind])


_OTHERWISE = {
    torch.bfloat16: "compiled code computes in float32 there, and differs from torch by what torch "
    "rounds",
    torch.float64: "compiled code convolves and resizes in float32 there",
}
_IN_SINGLE = ("conv", "upsample", "grid_sampler")
"""How operators begin that are not computed in float64."""


def _listed(operators: dict[str, list[str]]) -> str:
    """Return a line for every operator, with all places where it is used."""
    lines = [f"{name}, used in {', '.join(sorted(set(at)))}" for name, at in operators.items()]
    return "".join(f"\n    {line}" for line in sorted(lines))


def _place(node: fx.Node) -> str:
    """Return module path and source line of a node."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    trace = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    lines = [line.partition(", in ")[0] for line in trace if line.startswith("File ")]
    own = [line for line in lines if is_theirs(line.split('"')[1])]
    source = (own or lines or ["an unknown line"])[-1]
    return f"{path or 'the network'} ({source})"
