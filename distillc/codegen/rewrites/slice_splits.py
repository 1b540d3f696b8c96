# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Turn splits into slices, and move slices before depthwise convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call, rewrite_functions


@tvm.transform.module_pass(opt_level=0, name="SliceSplits")
class SliceSplits:
    """Split nothing that could be read where it lies.

    1. A part of a split becomes a slice: a slice can be fused into what reads it, a split with its
       several outputs cannot.
    2. A slice of channels of a depthwise convolution becomes the convolution of the slice, so that
       what follows reads a whole tensor and each part fuses with its own reader. A bias that was
       added in between is sliced too.
    3. Only where nothing but slices reads the convolution, none of which overlap: otherwise
       channels would be computed twice.

    Given:   y = conv2d(x, w, groups=2C) + b; p, q = split(y, 2, axis=1)
    Result:  p = conv2d(x[:, :C], w[:C], groups=C) + b[:, :C]; q = ...
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        for rewrite in (_Slicer, _Mover):
            mod = rewrite_functions(mod, rewrite(mod))
        return mod


@mutator
class _Slicer(PyExprMutator):
    """Rule 1."""

    def visit_tuple_getitem_(self, item: TupleGetItem) -> relax.Expr:
        item = super().visit_tuple_getitem_(item)
        split = self.lookup_binding(item.tuple_value)
        if not is_call(split, "relax.split"):
            return item
        x, axis = split.args[0], int(split.attrs.axis) % len(extents(split.args[0]))
        size = extents(x)[axis]
        sections = split.attrs.indices_or_sections
        if isinstance(sections, tvm.tirx.IntImm):
            step = -(-size // int(sections))
            borders = [min(size, index * step) for index in range(int(sections) + 1)]
        else:
            borders = [0, *map(int, sections), size]
        return _slice(x, axis, borders[item.index], borders[item.index + 1])


@dataclass(frozen=True)
class _Part:
    """Channels of a depthwise convolution, to which `bias` is added unless it is None."""

    conv: relax.Call
    bias: relax.Expr | None
    begin: int
    end: int


@mutator
class _Mover(PyExprMutator):
    """Rules 2 and 3."""

    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.parts: dict[relax.Call, _Part] = {}
        for _, func in mod.functions_items():
            if isinstance(func, relax.Function):
                self.parts |= _find_parts(func)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        part = self.parts.get(call)
        if part is None:
            return super().visit_call_(call)
        image, weight = (self.visit_expr(arg) for arg in part.conv.args)
        conv = relax.op.nn.conv2d(
            self.builder_.emit(_slice(image, 1, part.begin, part.end)),
            self.builder_.emit(_slice(weight, 0, part.begin, part.end)),
            groups=part.end - part.begin,
            **{key: part.conv.attrs[key] for key in ("strides", "padding", "dilation")},
        )
        if part.bias is None:
            return conv
        bias = _slice(self.visit_expr(part.bias), 1, part.begin, part.end)
        return relax.op.add(self.builder_.emit(conv), self.builder_.emit(bias))


def _find_parts(func: relax.Function) -> dict[relax.Call, _Part]:
    """Return the slices of a function that can move, and what becomes of them."""
    bindings = [b for block in func.body.blocks for b in block.bindings]
    readers: dict[relax.Var, list[tuple[relax.Var | None, relax.Expr]]] = {}
    for var, value in [*((b.var, b.value) for b in bindings), (None, func.body.body)]:
        for used in relax.analysis.free_vars(value):
            readers.setdefault(used, []).append((var, value))
    found: dict[relax.Call, _Part] = {}
    for binding in bindings:
        if not _is_depthwise(binding.value):
            continue
        using, bias = readers.get(binding.var, []), None
        if len(using) == 1 and (bias := _bias(using[0][1], binding.var)) is not None:
            using = readers.get(using[0][0], [])
        bounds = [_channels(value) for _, value in using]
        end = 0
        for each in sorted(bounds, key=lambda bound: bound or (-1, 0)):
            if each is None or each[0] < end:
                break
            end = each[1]
        else:
            parts = zip(using, bounds, strict=True)
            found |= {value: _Part(binding.value, bias, *bound) for (_, value), bound in parts}
    return found


def _bias(expr: relax.Expr, conv: relax.Var) -> relax.Expr | None:
    """Return what an addition adds to each channel of a convolution, None when it is none."""
    if not is_call(expr, "relax.add") or not expr.args[0].same_as(conv):
        return None
    return expr.args[1] if extents(expr.args[1]) == (1, extents(conv)[1], 1, 1) else None


def _channels(expr: relax.Expr) -> tuple[int, int] | None:
    """Return where a slice of channels begins and ends, None of any other expression."""
    if not is_call(expr, "relax.strided_slice"):
        return None
    axes, begin, end, *strides = [[int(each) for each in arg.fields] for arg in expr.args[1:]]
    size = extents(expr.args[0])
    if [axis % len(size) for axis in axes] != [1] or strides not in ([], [[1]]):
        return None
    first, last = (each[0] + size[1] if each[0] < 0 else each[0] for each in (begin, end))
    return max(0, first), min(size[1], last)


def _slice(x: relax.Expr, axis: int, begin: int, end: int) -> relax.Expr:
    return relax.op.strided_slice(x, [axis], [begin], [end], assume_inbound=True)


def _is_depthwise(conv: relax.Expr) -> bool:
    if not is_call(conv, "relax.nn.conv2d"):
        return False
    weight = extents(conv.args[1])
    return int(conv.attrs.groups) == weight[0] == extents(conv.args[0])[1] and weight[1] == 1
