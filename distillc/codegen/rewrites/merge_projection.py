# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Multiply the small matrices of channel attention before the large one."""

from __future__ import annotations

from math import prod

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call, rewrite_functions


@tvm.transform.module_pass(opt_level=0, name="MergeProjection")
class MergeProjection:
    """Reassociate W (A V) to (W A) V: one product over the pixels instead of two.

    1. V holds the channels of each head at all pixels, (h, c, L), A the channels' attention, (h,
       c, c), and W is a 1x1 convolution of the result, seen as an image (1, h c, H, W).
    2. The weights of head i multiply its A; side by side they are one matrix of (O, h c).
    3. Only where a head's channels are fewer than the pixels.

    Given:   conv2d(reshape(matmul(A, V)), W)
    Result:  conv2d(reshape(V), reshape(matmul(W by head, A)))
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_functions(mod, _Merger(mod))


@mutator
class _Merger(PyExprMutator):
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if not is_call(call, "relax.nn.conv2d") or not _is_pointwise(call):
            return call
        product = self.viewed(call.args[0])
        if not is_call(product, "relax.matmul"):
            return call
        attention, values = product.args
        weight = call.args[1]
        outputs, channels = extents(weight)[:2]
        heads = prod(extents(attention)[:-2])
        share, pixels = extents(values)[-2:]
        square = extents(attention)[-2:] == (share, share)
        if prod(extents(values)[:-2]) != heads:  # one of them serves several heads
            return call
        if not square or heads * share != channels or share >= pixels:  # rules 1, 3
            return call
        op, emit = relax.op, self.builder_.emit
        by_head = emit(
            op.permute_dims(emit(op.reshape(weight, (outputs, heads, share))), (1, 0, 2))
        )
        small = emit(op.matmul(by_head, emit(op.reshape(attention, (heads, share, share)))))
        merged = emit(
            op.reshape(emit(op.permute_dims(small, (1, 0, 2))), (outputs, channels, 1, 1))
        )
        image = emit(op.reshape(values, extents(call.args[0])))
        return op.nn.conv2d(image, merged)

    def viewed(self, expr: relax.Expr) -> relax.Expr | None:
        """Return what a chain of reshapes views."""
        call = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        return self.viewed(call.args[0]) if is_call(call, "relax.reshape") else call


def _is_pointwise(conv: relax.Call) -> bool:
    weight, image = extents(conv.args[1]), extents(conv.args[0])
    plain = {int(each) for each in conv.attrs.strides} == {1} and not any(conv.attrs.padding)
    return image[0] == 1 and weight[2:] == (1, 1) and int(conv.attrs.groups) == 1 and plain
