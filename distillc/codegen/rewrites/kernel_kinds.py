"""What a kernel does with its pixels, read off its TIR: what `fuse_kernels.py` decides by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from math import prod

import tvm_ffi
from tvm import s_tir, sym, tirx
from tvm.ir import Call, TensorLoad

from distillc.codegen.schedule.rules.base import (
    ComputeBlock,
    find_blocks,
    inline_elementwise,
    loads,
    product_operands,
    simplify,
)
from distillc.codegen.schedule.rules.contraction import find_contraction
from distillc.codegen.schedule.rules.flatten import merge_axes, static_shape, substitute
from distillc.codegen.schedule.rules.long_sum import is_long
from distillc.codegen.schedule.rules.pixels import pixel_axis
from distillc.codegen.schedule.rules.row_reduction import sums_rows
from distillc.codegen.schedule.rules.stencil import is_depthwise


class Kind(Enum):
    """What a kernel does with its pixels (the contiguous axis, image axes merged)."""

    COPY = "moves numbers, contiguous ones stay contiguous"
    POINTWISE = "maps each pixel's channels to channels of the same pixel"
    PRODUCT = "the same by a matrix product"
    DEPTHWISE = "a depthwise convolution, and pixelwise work on its result"
    TRANSPOSE = "moves numbers, the second last axis becomes the contiguous one"
    GRAM = "a small matrix product summed over many pixels"
    SCHEDULED = "brings a schedule of its own"
    OTHER = "anything else"


@dataclass(frozen=True)
class KernelKind:
    """What is known of a kernel.

    Attributes:
        kind: What it does.
        pixels: How many its output has, 0 for copies and for what does not work pixel by pixel.
        apart: Numbers of the parameters that nothing may compute inside this kernel: those read
            through a window or by cases, and all of a product's but what it packs.
        factors: Numbers of the parameters that a product multiplies as they are.
        plain: Whether a copy only permutes axes or drops unit ones: products can read it in place.
        work: How often its blocks run, all together.
        shape: The extents of its result but those of 1.
        simple: Whether it computes floating-point numbers, and reads each operand at the axes of
            its blocks, or copies it: no windows, no lookups, no cases.
        sums: Whether it has sums.
        product: Whether one of them is a matrix product.
        rows: Whether it has one sum, along rows, and multiplies no matrices.
    """

    kind: Kind
    pixels: int = 0
    apart: frozenset[int] = frozenset()
    factors: frozenset[int] = frozenset()
    plain: bool = False
    work: int = 0
    shape: tuple[int, ...] = ()
    simple: bool = False
    sums: bool = False
    product: bool = False
    rows: bool = False


def kernel_kind(func: tirx.PrimFunc) -> KernelKind:
    """Classify a kernel as it comes from FuseTIR."""
    if func.attrs is not None and "distillc.scheduled" in func.attrs:
        return KernelKind(Kind.SCHEDULED)
    blocks = find_blocks(s_tir.Schedule(simplify(func)))
    sums = [block for block in blocks if block.reduction]
    product = any(product_operands(block) for block in sums)
    return replace(
        _pixel_kind(func),
        work=sum(block.size for block in blocks),
        shape=tuple(extent for extent in static_shape(func.params[-1]) or () if extent > 1),
        simple=all(_is_simple(block) for block in blocks),
        sums=bool(sums),
        product=product,
        rows=len(sums) == 1 and sums_rows(sums[0]) and not product,
    )


def _is_simple(block: ComputeBlock) -> bool:
    """Whether a block computes floating-point numbers, and reads them at its own axes."""
    read = loads(block.stmt.body.value)
    floats = all("float" in str(each.source.ty.dtype) for each in read)
    by_axes = all(
        isinstance(index, tirx.Var | tirx.IntImm) for each in read for index in each.indices
    )
    return not _has_cases(block) and floats and (by_axes or read == [block.stmt.body.value])


def _pixel_kind(func: tirx.PrimFunc) -> KernelKind:
    """Say what a kernel does with its pixels."""
    plain = simplify(inline_elementwise(simplify(func)))
    blocks = find_blocks(s_tir.Schedule(plain))
    if any(not load.indices for block in blocks for load in loads(block.stmt.body)):
        return KernelKind(Kind.OTHER)  # a single number has no pixels
    if len(blocks) == 1 and (kind := _copy_kind(blocks[0])):
        (copy,) = find_blocks(s_tir.Schedule(merge_axes(plain).func))
        simple = all(
            isinstance(index, tirx.Var | tirx.IntImm) for index in copy.stmt.body.value.indices
        )
        return KernelKind(kind, plain=simple)
    if is_depthwise(blocks):
        image = loads(blocks[0].stmt.body.value)[0].source
        return KernelKind(Kind.DEPTHWISE, _pixels(func), _numbers(func, [image]))
    merged = merge_axes(plain).func
    blocks = find_blocks(s_tir.Schedule(merged))
    products = [block for block in blocks if find_contraction(block)]
    factors = _numbers(merged, [load.source for block in products for load in _factors(block)])
    other = KernelKind(Kind.OTHER, factors=factors)
    if _is_gram(blocks[0]):
        return KernelKind(Kind.GRAM)
    axes = [pixel_axis(block) for block in blocks]
    if len({axis.extent if axis else 0 for axis in axes}) > 1 or axes[0] is None:
        return other
    everything = frozenset(range(len(func.params)))
    if not products:
        cases = any(_has_cases(block) for block in blocks)
        return KernelKind(Kind.POINTWISE, _pixels(func), everything if cases else frozenset())
    number = blocks.index(products[0])
    rest = blocks[number + 1 :]
    if len(products) > 1 or any(block.reduction for block in rest) or len(rest) > 1:
        return other
    contraction = find_contraction(products[0])
    assert contraction is not None
    packed = products[0].stmt.reads[contraction.packed].source
    before = [load.source for block in blocks[:number] for load in loads(block.stmt.body.value)]
    after = [load.source for block in rest for load in loads(block.stmt.body.value)]
    inside = _numbers(merged, [packed, *before]) - _numbers(merged, after)
    return KernelKind(Kind.PRODUCT, _pixels(func), everything - inside, factors)


def _numbers(func: tirx.PrimFunc, buffers: list[tirx.Var]) -> frozenset[int]:
    """Return which parameters of a function are among some buffers."""
    return frozenset(
        number
        for number, param in enumerate(func.params)
        if any(param.same_as(buffer) for buffer in buffers)
    )


def _factors(block: ComputeBlock) -> tuple[TensorLoad, ...]:
    return product_operands(block) or ()


def _is_gram(block: ComputeBlock) -> bool:
    product = find_contraction(block)
    if not product or not len(product.rows) == len(product.columns) == len(product.sums) == 1:
        return False
    rows, columns, sums = (each[0].extent for each in (product.rows, product.columns, product.sums))
    return is_long(sums, rows, columns)


def _has_cases(block: ComputeBlock) -> bool:
    """Whether a block reads here this and there that, as concatenations do."""
    calls: list[Call] = []
    tvm_ffi.structural_walk(block.stmt.body.value, (Call, calls.append))
    return any(call.op.name == "prim.if_then_else" for call in calls)


def _pixels(func: tirx.PrimFunc) -> int:
    """Return the pixels of an image (B, C, H, W), or the extent of the contiguous axis."""
    shape = static_shape(func.params[-1]) or (0,)
    return prod(shape[2:]) if len(shape) == 4 else shape[-1]


def _copy_kind(block: ComputeBlock) -> Kind | None:
    """Say which axis of a copy's result follows the contiguous axis of its source."""
    load = block.stmt.body.value
    indices = block.stmt.body.indices
    if block.reduction or not isinstance(load, TensorLoad) or not indices:
        return None
    extents = {it.var: it.extent for it in block.iters}
    flat: tirx.Expr = tirx.const(0, "int64")
    for index, extent in zip(load.indices, load.source.ty.shape, strict=True):
        flat = flat * extent + index

    def steps(axis: tirx.Expr) -> bool:
        """Divisions hide the step from the simplifier: try positions."""
        if not isinstance(axis, tirx.Var) or extents[axis] < 4:
            return False
        values = {var: tirx.const(extent // 2, "int64") for var, extent in extents.items()}
        found = []
        for place in (0, 1, 2, extents[axis] - 1):
            values[axis] = tirx.const(place, "int64")
            position = sym.Analyzer().simplify(substitute(flat, values))
            if not isinstance(position, tirx.IntImm):  # an index that is computed, or looked up
                return False
            found.append(int(position))
        return [each - found[0] for each in found] == [0, 1, 2, extents[axis] - 1]

    if steps(indices[-1]):
        return Kind.COPY
    return Kind.TRANSPOSE if len(indices) > 1 and steps(indices[-2]) else None
