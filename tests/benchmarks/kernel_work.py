"""What each kernel of a lowered network has to do: floating-point work and compulsory traffic."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import tvm_ffi
from torch import nn
from tvm import s_tir, tirx

from distillc.codegen.kernels.builder import SCHEDULED
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.stages import lower
from distillc.frontend.trace import export_program
from distillc.targets.base import Target


@dataclass(frozen=True)
class Work:
    """The work of one kernel, whatever its name.

    Attributes:
        rule: What scheduled it, the attribute `distillc.scheduled`.
        shapes: Shapes of inputs and outputs, as text.
        flops: Floating-point operations of its sums of products.
        bytes: Size of inputs and outputs: what has to be moved at least.
    """

    rule: str
    shapes: str
    flops: int
    bytes: int


def kernel_work(module: nn.Module, target: Target, shape: tuple[int, ...]) -> dict[str, Work]:
    """Return the work of each kernel by name, for a float32 input of this shape.

    Raises:
        TraceError, LoweringError: See `distillc.codegen.build.library.build_library`.
    """
    mod = lower(export_program(module, shape), target)
    scheduled = schedule_module(mod, target)
    found = {}
    for name, func in mod.functions_items():
        if not isinstance(func, tirx.PrimFunc):
            continue
        attrs = scheduled[name.name_hint].attrs
        buffers = list(func.params)
        found[name.name_hint] = Work(
            str(attrs[SCHEDULED]).removeprefix("schedule_"),
            " ".join(_shape_text(buffer) for buffer in buffers),
            count_flops(func),
            sum(_bytes(buffer) for buffer in buffers),
        )
    return found


def count_flops(func: tirx.PrimFunc) -> int:
    """Return 2 x the iteration space of every block that sums products.

    Other sums, maxima and elementwise work count nothing: such kernels are bound by traffic.

    Args:
        func: Before scheduling, so that each block spans its whole iteration space.
    """
    blocks: list[s_tir.SBlock] = []
    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, blocks.append))
    return sum(
        2 * prod(int(each.dom.extent) for each in block.iter_vars)
        for block in blocks
        if _sums_products(block)
    )


def _sums_products(block: s_tir.SBlock) -> bool:
    reduces = any(each.iter_type == tirx.IterVar.CommReduce for each in block.iter_vars)
    value = getattr(block.body, "value", None)
    return (
        reduces
        and isinstance(value, tirx.Add)
        and any(isinstance(side, tirx.Mul) for side in (value.a, value.b))
    )


def _shape_text(buffer: tirx.Var) -> str:
    return "x".join(str(int(extent)) for extent in buffer.shape) or "1"


def _bytes(buffer: tirx.Var) -> int:
    return prod(int(extent) for extent in buffer.shape) * buffer.dtype.itemsize
