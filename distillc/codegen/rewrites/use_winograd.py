# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Compute dense 3x3 convolutions of many channels with a quarter of the multiplications."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Constant
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.kernels.winograd import (
    WinogradSizes,
    tile_lanes,
    transform_weights,
    winograd_kernel,
)
from distillc.codegen.rewrites.walk import (
    extents,
    is_call,
    is_view,
    readers_of,
    rewrite_functions,
)
from distillc.targets.base import Target

CHANNELS = 32
"""Of image and result, at least: with fewer, transforms are most of the work."""
PIXELS = 1024
"""Of the image, at least: with fewer, reading the weights, four times as many, is."""


@tvm.transform.module_pass(opt_level=0, name="UseWinograd")
class UseWinograd:
    """Let a kernel of Winograd's form take 3x3 convolutions.

    1. Constant weights (O, I, 3, 3), stride 1, padded by one pixel; edges that tiles divide.
    2. I and O are 32 or more, pixels 1024 or more.
    3. A bias, and an image that is added to the result, go into the kernel if nothing else reads
       what they are added to.

    Given:   add(add(conv2d(x, W), b), y)
    Result:  winograd(x, transformed W, b, y)

    Args:
        target: Decides the shape of the kernel.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite every Relax function."""
        return rewrite_functions(mod, _Chooser(mod, self.target))


class _Found(NamedTuple):
    """A convolution and what is added to it: a number for each channel, an image."""

    conv: relax.Call
    bias: np.ndarray | None = None
    added: relax.Expr | None = None


@mutator
class _Chooser(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, target: Target) -> None:
        super().__init__(mod)
        self.target = target
        self.found: dict[relax.Var, _Found] = {}
        self.constants: dict[relax.Var, np.ndarray] = {}
        self.readers = readers_of(mod)
        self.kernels: dict[WinogradSizes, Any] = {}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if is_view(value) and (constant := self.constant(value.args[0])) is not None:
            self.constants[binding.var] = constant.reshape(extents(value))
        found = self.read(value)
        if found is not None:
            self.found[binding.var] = found
            readers = self.readers.get(binding.var, [])
            if len(readers) != 1 or self.read(readers[0]) is None:
                binding = relax.VarBinding(binding.var, self.called(found))
        super().visit_var_binding_(binding)

    def constant(self, expr: relax.Expr) -> np.ndarray | None:
        """Return the value of a constant, or of a view of one."""
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self.constants.get(expr) if isinstance(expr, relax.Var) else None

    def read(self, call: relax.Expr) -> _Found | None:
        """Return the convolution that a call is or ends (rules 1 to 3)."""
        if is_call(call, "relax.nn.conv2d"):
            return _Found(call) if self.fits(call) else None
        if not is_call(call, "relax.add"):
            return None
        for number, expr in enumerate(call.args):
            before = self.found.get(expr) if isinstance(expr, relax.Var) else None
            if before is None or len(self.readers[expr]) > 1 or before.added is not None:
                continue
            other = call.args[1 - number]
            constant = self.constant(other)
            count = extents(before.conv)[1]
            if constant is not None:
                if before.bias is None and constant.shape == (1, count, 1, 1):
                    return before._replace(bias=constant.reshape(-1))
            elif extents(other) == extents(before.conv):
                return before._replace(added=other)
        return None

    def fits(self, conv: relax.Call) -> bool:
        """Apply rules 1 and 2."""
        weight, image, attrs = self.constant(conv.args[1]), extents(conv.args[0]), conv.attrs
        if weight is None or len(image) != 4 or str(conv.ty.dtype.dtype) != "float32":
            return False
        ones = (*attrs.strides, *attrs.padding, *attrs.dilation, attrs.groups, image[0])
        if weight.shape[2:] != (3, 3) or any(int(each) != 1 for each in ones):
            return False
        height, width = image[2:]
        return (
            min(weight.shape[:2]) >= CHANNELS
            and height * width >= PIXELS
            and tile_lanes(height, width, self.target.lanes) > 0
        )

    def called(self, found: _Found) -> relax.Expr:
        """Return the kernel's result as an image."""
        op, emit = relax.op, self.builder_.emit
        weight, (_, outputs, height, width) = self.constant(found.conv.args[1]), extents(found.conv)
        assert weight is not None
        added = found.added is not None
        sizes = WinogradSizes(
            weight.shape[1], outputs, height, width, int(found.bias is not None), int(added)
        )
        if sizes not in self.kernels:
            kernel = winograd_kernel(sizes, self.target)
            self.kernels[sizes] = self.builder_.add_func(kernel, "winograd")
        pixels = height * width
        image = self.visit_expr(found.conv.args[0])
        args = [
            emit(op.reshape(image, (sizes.channels, pixels))),
            relax.const(transform_weights(weight)),
        ]
        if found.bias is not None:
            args.append(relax.const(found.bias))
        if added:
            args.append(emit(op.reshape(self.visit_expr(found.added), (outputs, pixels))))
        rows = relax.TensorType((outputs, pixels), "float32")
        called = emit(relax.call_tir(self.kernels[sizes], args, rows))
        return op.reshape(called, (1, outputs, height, width))
