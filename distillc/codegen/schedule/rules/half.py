"""Kernels on float16: what a rule is told of the target."""

from __future__ import annotations

import functools
from dataclasses import replace

from tvm import s_tir, tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules.base import Rule, find_blocks, product_operands
from distillc.targets.base import Target


def with_half_lanes(rule: Rule) -> Rule:
    """Tell a rule of twice the lanes where a kernel computes in float16 and the target can.

    What such a kernel computes in float32 then takes two registers a vector. Accumulators must not:
    a product in float32 gets float32's lanes, though its operands may be float16.
    """

    @functools.wraps(rule)
    def schedule(func: tirx.PrimFunc, target: Target, knobs: Knobs) -> s_tir.Schedule | None:
        half = target.half and _is_half(func)
        return rule(func, replace(target, element_bits=16) if half else target, knobs)

    return schedule


def _is_half(func: tirx.PrimFunc) -> bool:
    """Whether all products of a kernel are in float16; without any, whether it touches float16."""
    blocks = find_blocks(s_tir.Schedule(func))
    products = [block.output for block in blocks if product_operands(block)]
    if products:
        return all(_is_half_buffer(buffer) for buffer in products)
    return any(_is_half_buffer(buffer) for buffer in (*func.params, *func.body.block.alloc_buffers))


def _is_half_buffer(buffer: tirx.Var) -> bool:
    return str(buffer.ty.dtype) == "float16"
