# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""The walk over a network that keeps tokens as images; see `ImageLayout`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Constant
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.kernels.attention import AttentionSizes, attention_kernel
from distillc.codegen.rewrites.image_layout import channels, pointwise
from distillc.codegen.rewrites.image_layout.attend import attend
from distillc.codegen.rewrites.image_layout.attention_chains import score_products
from distillc.codegen.rewrites.image_layout.lay_out import lay_out
from distillc.codegen.rewrites.image_layout.scores import (
    Scores,
    adopt,
    in_memory,
    scores_of,
)
from distillc.codegen.rewrites.image_layout.tokens import Places, Tokens, of_image
from distillc.codegen.rewrites.walk import extents, is_call
from distillc.targets.base import Target


@dataclass(frozen=True)
class Repeated:
    """Tokens repeated along dimensions of extent 1, as arithmetic repeats them itself."""

    tokens: Tokens
    call: relax.Call


Value = Tokens | Scores | Repeated

SAME_ORDER = ("relax.reshape", "relax.expand_dims", "relax.squeeze", "relax.broadcast_to")
EACH = (
    "relax.nn.gelu",
    "relax.nn.gelu_tanh",
    "relax.nn.leakyrelu",
    "relax.nn.relu",
    "relax.nn.silu",
    "relax.abs",
    "relax.clip",
    "relax.erf",
    "relax.exp",
    "relax.negative",
    "relax.rsqrt",
    "relax.sigmoid",
    "relax.sqrt",
    "relax.tanh",
)
PAIRS: dict[str, Callable[..., relax.Expr]] = {
    "relax.add": relax.op.add,
    "relax.divide": relax.op.divide,
    "relax.maximum": relax.op.maximum,
    "relax.minimum": relax.op.minimum,
    "relax.multiply": relax.op.multiply,
    "relax.power": relax.op.power,
    "relax.subtract": relax.op.subtract,
}
REDUCTIONS: dict[str, Callable[..., relax.Expr]] = {
    "relax.max": relax.op.max,
    "relax.mean": relax.op.mean,
    "relax.min": relax.op.min,
    "relax.sum": relax.op.sum,
}


@mutator
class Layouter(PyExprMutator):
    """Reads the calls of a function in order; what it cannot keep as tokens, it lays out."""

    def __init__(self, mod: tvm.IRModule, target: Target) -> None:
        super().__init__(mod)
        self.target = target
        self.values: dict[relax.Var, Value] = {}
        self.laid: dict[relax.Var, relax.Expr] = {}
        self.constants: dict[relax.Var, Places] = {}
        self.kernels: dict[AttentionSizes, Any] = {}
        self.bound: relax.Var | None = None  # what the call that is looked at is bound to
        self.scores = {
            var
            for _, func in mod.functions_items()
            if isinstance(func, relax.Function)
            for var in score_products(func)
        }
        self.sizes: dict[int, tuple[int, ...]] = {}  # of images that were met, by their pixels

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if is_call(value, "relax.nn.conv2d"):
            size = extents(value)[2:]
            self.sizes.setdefault(size[0] * size[1], size)
        if isinstance(value, relax.Call):
            constant = self.folded(value)
            if constant is not None:
                self.constants[binding.var] = constant
            else:
                self.bound = binding.var
                found = self.read(value)
                if found is not None and isinstance(binding.var, relax.DataflowVar):
                    self.values[binding.var] = found
                    return
                if found is not None:  # the function's result
                    binding = relax.VarBinding(binding.var, self.lay_out(found))
        super().visit_var_binding_(binding)

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        if var not in self.values:
            return super().visit_dataflow_var_(var)
        if var not in self.laid:
            self.laid[var] = self.lay_out(self.values[var])
        return self.laid[var]

    def lay_out(self, value: Value) -> relax.Expr:
        """Return a value as a tensor in memory (rule 4)."""
        if isinstance(value, Tokens):
            if value.view is not None and not value.is_image():
                return self.emit(super().visit_call_(value.view))
            return lay_out(value, self.emit)
        if isinstance(value, Repeated):
            return self.emit(super().visit_call_(value.call))
        return in_memory(value, self.emit)

    def read(self, call: relax.Call) -> Value | None:
        """Return what a call computes, None where it needs its operands in memory."""
        name = call.op.name if isinstance(call.op, tvm.ir.Op) else ""
        if name in SAME_ORDER or _pads_nothing(call):
            return self.reshaped(call)
        if name == "relax.permute_dims":
            return self.permuted(call)
        if name in ("relax.take", "relax.strided_slice"):
            return self.taken(call)
        if name == "relax.concat":
            return self.joined(call)
        if name == "relax.matmul":
            return self.multiplied(call)
        if name in PAIRS:
            return self.combined(call, PAIRS[name])
        if name == "relax.where":
            return self.filled(call)
        if name == "relax.nn.softmax":
            return self.softmaxed(call)
        tokens = self.tokens(call.args[0]) if call.args else None
        if tokens is None:
            return None
        if name in EACH:
            return pointwise.of_each(call, tokens, self.emit)
        if name == "relax.nn.layer_norm":
            scale, shift = (self.constant(each) for each in call.args[1:])
            if scale is None or shift is None:
                return None
            return channels.layer_norm(call, tokens, scale, shift, self.emit)
        if name in REDUCTIONS and call.attrs.axis is not None:
            dims = [int(axis) % len(tokens.dims) for axis in call.attrs.axis]
            keep = bool(call.attrs.keepdims)
            return channels.reduce_channels(REDUCTIONS[name], tokens, dims, keep, self.emit)
        return None

    def viewed(self, expr: relax.Expr) -> Value | None:
        """Return what a view may be taken of: an image that was computed, too."""
        if not isinstance(expr, relax.Var):
            return None
        if expr in self.values:
            return self.values[expr]
        if expr in self.constants or not isinstance(expr.ty, relax.TensorType):
            return None
        shape = extents(expr)
        if len(shape) not in (3, 4) or shape[0] != 1 or str(expr.ty.dtype.dtype) != "float32":
            return None
        x = self.visit_expr(expr)
        size = self.sizes.get(shape[-1])
        if size and shape[-2:] not in self.sizes.values():
            image = self.emit(relax.op.reshape(x, (1, int(np.prod(shape[1:-1])), *size)))
            return of_image(image).reshaped(shape)
        return of_image(x) if len(shape) == 4 else None

    def tokens(self, expr: relax.Expr) -> Tokens | None:
        """Return a tensor of tokens that does not lie in memory in its own order."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, Tokens) and value.is_pointwise() else None

    def constant(self, expr: relax.Expr) -> Places | None:
        """Return the value of a constant, or of a view of one."""
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self.constants.get(expr) if isinstance(expr, relax.Var) else None

    def folded(self, call: relax.Call) -> Places | None:
        """Return a view of a constant."""
        if not is_call(call, "relax.permute_dims", *SAME_ORDER):
            return None
        value = self.constant(call.args[0])
        if value is None or value.size != np.prod(extents(call)):
            return None
        if is_call(call, "relax.permute_dims"):
            return value.transpose(call.attrs.axes and [int(axis) for axis in call.attrs.axes])
        return value.reshape(extents(call))

    def reshaped(self, call: relax.Call) -> Value | None:
        value = self.viewed(call.args[0])
        if value is None or isinstance(value, Repeated):
            return None
        if np.prod(value.shape) != np.prod(extents(call)):
            if isinstance(value, Tokens) and len(value.dims) == len(extents(call)):
                return Repeated(value, call)
            return None
        return _seen(value, value.reshaped(extents(call)), call)

    def permuted(self, call: relax.Call) -> Value | None:
        value = self.viewed(call.args[0])
        if value is None or isinstance(value, Repeated):
            return None
        order = call.attrs.axes or range(len(value.dims))[::-1]
        return _seen(value, value.permuted([int(axis) for axis in order]), call)

    def taken(self, call: relax.Call) -> Value | None:
        value = self.viewed(call.args[0])
        if not isinstance(value, Tokens):
            return None
        chosen = self.choices(call, value.shape)
        if chosen is None:
            return None
        found: Tokens | None = value
        for dim, places in chosen:
            found = found and found.taken(dim, places)
        return _seen(value, found, call)

    def choices(self, call: relax.Call, shape: Sequence[int]) -> list[tuple[int, Places]] | None:
        """Return which places of which dimensions a slice or a lookup takes."""
        if is_call(call, "relax.take"):
            places = self.constant(call.args[1])
            if places is None or places.ndim > 1 or call.attrs.axis is None:
                return None
            dim = int(call.attrs.axis) % len(shape)
            return [(dim, np.asarray(places) % shape[dim])]
        axes, begin, end, *steps = [[int(each) for each in arg.fields] for arg in call.args[1:]]
        strides = steps[0] if steps else [1] * len(axes)
        return [
            (axis % len(shape), np.arange(shape[axis % len(shape)])[first:last:step])
            for axis, first, last, step in zip(axes, begin, end, strides, strict=True)
        ]

    def joined(self, call: relax.Call) -> Value | None:
        fields = call.args[0].fields
        parts = [tokens for each in fields if (tokens := self.tokens(each)) is not None]
        if len(parts) < len(fields):
            return None
        dim = int(call.attrs.axis) % len(extents(call))
        return channels.join(parts, dim, self.emit)

    def multiplied(self, call: relax.Call) -> Value | None:
        left = call.args[0]
        a = self.values.get(left) if isinstance(left, relax.Var) else None
        weight = self.constant(call.args[1])
        if weight is not None:
            if (
                not isinstance(a, Tokens)
                or not a.is_pointwise()
                or weight.size != np.prod(weight.shape[-2:])
            ):
                return None
            return channels.product(a, weight.reshape(weight.shape[-2:]), self.emit)
        if isinstance(a, Scores) and a.softmax:
            return attend(a, self.operand(call.args[1]), self.called, self.emit)
        if self.bound not in self.scores:
            return None
        q, k = (self.operand(each) for each in call.args)
        return scores_of(q, k, self.emit)

    def operand(self, expr: relax.Expr) -> Tokens | relax.Expr:
        """Return an operand of attention: tokens, or a tensor in memory."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, Tokens) else self.visit_expr(expr)

    def called(
        self, sizes: AttentionSizes, args: list[relax.Expr], shape: tuple[int, ...]
    ) -> relax.Expr:
        """Emit the kernel's call, and return its result as an image."""
        if sizes not in self.kernels:
            kernel = attention_kernel(sizes, self.target)
            self.kernels[sizes] = self.builder_.add_func(kernel, "attention")
        rows = relax.TensorType((shape[1], shape[2] * shape[3]), "float32")
        called = self.emit(relax.call_tir(self.kernels[sizes], args, rows))
        return self.emit(relax.op.reshape(called, shape))

    def combined(self, call: relax.Call, operator: Callable[..., relax.Expr]) -> Value | None:
        a, b = call.args
        constants = [self.constant(each) for each in (a, b)]
        for each, constant, swapped in ((a, constants[1], False), (b, constants[0], True)):
            value = self.values.get(each) if isinstance(each, relax.Var) else None
            if value is None or constant is None or isinstance(value, Repeated):
                continue
            if isinstance(value, Scores):
                return _changed(value, constant, call.op.name, swapped)
            if is_call(call, "relax.multiply") and constant.size == 1:
                if constant.ndim > len(value.dims):
                    return None
                factor = value.factor * float(constant.reshape(()))
                return replace(value, factor=factor, view=None)
            if not value.is_pointwise():
                return None
            return pointwise.with_constant(operator, value, constant, swapped, self.emit)
        first, second = (
            self.values.get(each) if isinstance(each, relax.Var) else None for each in (a, b)
        )
        if isinstance(first, Repeated) != isinstance(second, Repeated):
            shapes = [extents(each) for each in (a, b)]
            if shapes[0] == shapes[1]:
                first, second = (
                    each.tokens if isinstance(each, Repeated) else each for each in (first, second)
                )
        if isinstance(first, Tokens) != isinstance(second, Tokens):
            first, second = self.adopted(call, first, second)
        if not isinstance(first, Tokens) or not isinstance(second, Tokens):
            return None
        if not (first.is_pointwise() or second.is_pointwise()):
            return None
        return pointwise.together(operator, first, second, self.emit)

    def adopted(
        self, call: relax.Call, first: Value | None, second: Value | None
    ) -> tuple[Value | None, Value | None]:
        """Lay a tensor in memory out as the tokens that it is combined with."""
        tokens, number = (first, 1) if isinstance(first, Tokens) else (second, 0)
        shape = extents(call.args[number])
        if not isinstance(tokens, Tokens) or not tokens.is_pointwise():
            return first, second
        if len(shape) != len(tokens.dims) or any(
            extent not in (1, whole) for extent, whole in zip(shape, tokens.shape, strict=True)
        ):
            return first, second
        dims = tuple(
            dim if extent > 1 else () for dim, extent in zip(tokens.dims, shape, strict=True)
        )
        other = adopt(self.visit_expr(call.args[number]), dims, self.emit)
        return (first, other) if number else (other, second)

    def filled(self, call: relax.Call) -> Value | None:
        where = self.constant(call.args[0])
        if where is None:
            return None
        for number, places in ((2, where.astype(bool)), (1, ~where.astype(bool))):
            expr, other = call.args[number], self.constant(call.args[3 - number])
            value = self.values.get(expr) if isinstance(expr, relax.Var) else None
            if isinstance(value, Scores) and other is not None and other.size == 1:
                return value.masked(places, float(other.reshape(())))
        return None

    def softmaxed(self, call: relax.Call) -> Value | None:
        (expr,) = call.args
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        last = int(call.attrs.axis) % len(extents(call)) == len(extents(call)) - 1
        if not isinstance(value, Scores) or not last or value.softmax:
            return None
        return replace(value, softmax=True)

    def emit(self, expr: relax.Expr) -> relax.Expr:
        return self.builder_.emit(expr)


def _seen(source: Value, value: Value | None, call: relax.Call) -> Value | None:
    """Note the call in a view of what only views were taken of."""
    if not isinstance(source, Tokens) or not isinstance(value, Tokens):
        return value
    plain = source.view is not None or source.is_raw
    return replace(value, view=call if plain else None, is_raw=False)


def _pads_nothing(call: relax.Call) -> bool:
    return is_call(call, "relax.nn.pad") and not any(map(int, call.attrs.pad_width))


def _changed(scores: Scores, constant: Places, name: str, swapped: bool) -> Scores | None:
    if name == "relax.add":
        return scores.plus(constant)
    if name == "relax.subtract" and not swapped:
        return scores.plus(-constant)
    if name == "relax.multiply":
        return scores.times(constant)
    if name == "relax.divide" and not swapped:
        return scores.times(1 / constant)
    return None
