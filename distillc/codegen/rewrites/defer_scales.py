# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Divide the product of two matrices instead of its operands."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call, rewrite_functions

REPEATABLE = ("relax.reshape", "relax.permute_dims", "relax.broadcast_to", "relax.expand_dims")


@tvm.transform.module_pass(opt_level=0, name="DeferScales")
class DeferScales:
    """Move a division by one number per row out of a long product.

    1. An operand of a matrix product that is `x / s`, with `s` constant along the axis that the
       product sums over, becomes `x`; the product is divided by `s` instead.
    2. Reshapes, transpositions and broadcasts between division and product are repeated on `s`; the
       axis may be several there, as height and width.
    3. Only where the product is smaller than the operand: it saves passes over the operand.

    Channel attention normalises C rows of H * W pixels and multiplies them to C x C numbers.

    Given:   matmul(reshape(divide(q, norm)), k)            q (B, h, C, L), norm (B, h, C, 1)
    Result:  divide(matmul(reshape(q), k), reshape(norm))
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_functions(mod, _Deferrer(mod))


@mutator
class _Deferrer(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, "relax.matmul"):
            return call
        if min(len(extents(operand)) for operand in call.args) < 2:
            return call
        product, scales = list(call.args), []
        for index, axis in ((0, -1), (1, -2)):
            operand = call.args[index]
            if prod(extents(operand)) <= prod(extents(call)):  # rule 3
                continue
            found = self.divided(operand, [len(extents(operand)) + axis])
            if found is not None:
                product[index], scale = found
                scales.append(scale)
        if not scales:
            return call
        result = relax.op.matmul(*product, out_dtype=call.attrs.out_dtype)
        for scale in scales:
            result = relax.op.divide(self.builder_.emit(result), scale)
        return result

    def divided(
        self, expr: relax.Expr, axes: Sequence[int]
    ) -> tuple[relax.Expr, relax.Expr] | None:
        """Return x and s of an expression that views `x / s`, None when there is no such s."""
        call = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        if is_call(call, "relax.divide"):
            x, scale = call.args
            size = extents(self.narrow(scale))
            if (
                extents(x) == extents(call)
                and len(size) == len(extents(x))
                and all(size[axis] == 1 for axis in axes)
            ):
                return x, self.narrow(scale)  # rule 1
        if not is_call(call, *REPEATABLE):
            return None
        before = _axes_before(call, axes)
        if before is None:
            return None
        inner = self.divided(call.args[0], before)
        if inner is None:
            return None
        x, scale = inner  # rule 2
        if is_call(call, "relax.permute_dims"):
            order = [int(each) for each in call.attrs.axes]
            views = [relax.op.permute_dims(each, order) for each in (x, scale)]
        else:
            rows = _with_ones(extents(x), before)
            if extents(scale) != rows:  # a number for several rows
                scale = self.builder_.emit(relax.op.broadcast_to(scale, rows))
            wanted = _with_ones(extents(call), axes)
            views = [relax.op.reshape(x, extents(call)), relax.op.reshape(scale, wanted)]
        return self.builder_.emit(views[0]), self.builder_.emit(views[1])

    def narrow(self, scale: relax.Expr) -> relax.Expr:
        """Return what a broadcast repeats."""
        call = self.lookup_binding(scale) if isinstance(scale, relax.Var) else None
        return call.args[0] if is_call(call, "relax.broadcast_to") else scale


def _with_ones(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))


def _axes_before(call: relax.Call, axes: Sequence[int]) -> Sequence[int] | None:
    """Return where axes of a view's result come from, None where they do not stay whole."""
    source, result = extents(call.args[0]), extents(call)
    if is_call(call, "relax.permute_dims"):
        return sorted(int(call.attrs.axes[axis]) for axis in axes)
    if prod(source) != prod(result):  # a broadcast that really repeats
        return None
    return _same_axes(source, result, axes)


def _same_axes(
    source: Sequence[int], result: Sequence[int], axes: Sequence[int]
) -> Sequence[int] | None:
    """Return the neighbouring axes that neighbouring ones were made of, or became."""
    first, last = axes[0], axes[-1]
    if list(axes) != list(range(first, last + 1)):
        return None
    size, inner = prod(result[first : last + 1]), prod(result[last + 1 :])
    for end in range(1, len(source) + 1):
        if prod(source[end:]) != inner:
            continue
        for begin in range(end - 1, -1, -1):
            if prod(source[begin:end]) == size:
                return range(begin, end)
    return None
