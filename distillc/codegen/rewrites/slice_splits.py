# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Turn splits into slices, and move slices before depthwise convolutions."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.ir import TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call


@tvm.transform.module_pass(opt_level=0, name="SliceSplits")
class SliceSplits:
    """Split nothing that could be read where it lies.

    1. A part of a split becomes a slice: a slice can be fused into what reads it, a split with its
       several outputs cannot.
    2. A slice of channels of a depthwise convolution becomes the convolution of the slice, so that
       what follows reads a whole tensor and each part fuses with its own reader.

    Given:   y = conv2d(x, w, groups=2C); a, b = split(y, 2, axis=1)
    Result:  a = conv2d(x[:, :C], w[:C], groups=C); b = conv2d(x[:, C:], w[C:], groups=C)
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return _rewrite(mod)


def _rewrite(mod: tvm.IRModule) -> tvm.IRModule:
    visitor = _Slicer(mod)
    for name, func in mod.functions_items():
        if isinstance(func, relax.Function):
            visitor.builder_.update_func(name, visitor.visit_expr(func))
    return relax.transform.DeadCodeElimination()(visitor.builder_.get())


@mutator
class _Slicer(PyExprMutator):
    def visit_tuple_getitem_(self, item: TupleGetItem) -> relax.Expr:
        item = super().visit_tuple_getitem_(item)
        split = self.lookup_binding(item.tuple_value)
        if not is_call(split, "relax.split"):
            return item
        begin, end = _bounds(split, item.index)
        return self.cut(split.args[0], int(split.attrs.axis), begin, end)

    def cut(self, x: relax.Expr, axis: int, begin: int, end: int) -> relax.Expr:
        conv = self.lookup_binding(x) if isinstance(x, relax.Var) else None
        if axis == 1 and is_call(conv, "relax.nn.conv2d") and _is_depthwise(conv):  # rule 2
            image, weight = conv.args
            options = {key: conv.attrs[key] for key in ("strides", "padding", "dilation")}
            return relax.op.nn.conv2d(
                self.builder_.emit(_slice(image, 1, begin, end)),
                self.builder_.emit(_slice(weight, 0, begin, end)),
                groups=end - begin,
                **options,
            )
        return _slice(x, axis, begin, end)  # rule 1


def _slice(x: relax.Expr, axis: int, begin: int, end: int) -> relax.Expr:
    return relax.op.strided_slice(x, [axis], [begin], [end], assume_inbound=True)


def _bounds(split: relax.Call, index: int) -> tuple[int, int]:
    """Return where a part of a split begins and ends."""
    size = extents(split.args[0])[int(split.attrs.axis)]
    sections = split.attrs.indices_or_sections
    if isinstance(sections, tvm.tirx.IntImm):
        step = -(-size // int(sections))
        return index * step, min(size, (index + 1) * step)
    borders = [0, *map(int, sections), size]
    return borders[index], borders[index + 1]


def _is_depthwise(conv: relax.Call) -> bool:
    weight = extents(conv.args[1])
    return int(conv.attrs.groups) == weight[0] == extents(conv.args[0])[1] and weight[1] == 1
