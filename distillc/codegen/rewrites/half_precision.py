# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Compute in float16 what loses little by it, the rest in float32."""

from __future__ import annotations

from math import prod

import tvm
from tvm import relax
from tvm.ir import Constant
from tvm.relax.expr_functor import PyExprMutator, mutator

from distillc.codegen.rewrites.walk import extents, is_call, rewrite_functions
from distillc.codegen.schedule.rules.chunks import chunk_extent

HALF, SINGLE = "float16", "float32"

LONGEST = 512
"""Terms of the longest sum in float16."""

PRODUCTS = ("relax.nn.conv2d", "relax.matmul")
COPIES = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.strided_slice",
    "relax.expand_dims",
    "relax.squeeze",
    "relax.broadcast_to",
)
FOLLOWERS = (
    *COPIES,
    "relax.add",
    "relax.subtract",
    "relax.multiply",
    "relax.negative",
    "relax.maximum",
    "relax.minimum",
    "relax.abs",
    "relax.concat",
    "relax.split",
    "relax.nn.relu",
    "relax.nn.pad",
)
ROUNDED = (
    "relax.nn.gelu",
    "relax.nn.gelu_tanh",
    "relax.nn.silu",
    "relax.nn.leakyrelu",
    "relax.nn.softmax",
    "relax.nn.layer_norm",
    "relax.nn.avg_pool2d",
    "relax.sigmoid",
    "relax.tanh",
    "relax.erf",
    "relax.exp",
    "relax.clip",
)


@tvm.transform.module_pass(opt_level=0, name="HalfPrecision")
class HalfPrecision:
    """Choose float16 or float32 for every operator of a float32 network.

    1. Convolutions and matrix products take and return float16, unless they add up more than
       `LONGEST` terms in it: the products over all pixels of channel attention do. The longest
       sums of convolutions are divided (`rules/chunks.py`).
    2. Sums, gates, views and the like follow their operands: float16, but float32 when one of
       these is float32 and not a constant (a mean, the image).
    3. All else is computed in float32: statistics of norms, roots, quotients, the selective scan.
    4. Activations, softmax and whole norms are too, but give a float16 operand's type back.
    5. A cast of a view is the view of a cast, so that casts stand beside what computes and fuse
       with it. Constants are cast here.
    6. The function's parameters and result stay float32.

    Given:   y = conv2d(x, w); z = y / (norm(y) + 1)
    Result:  y = astype(conv2d(astype(x, fp16), fp16 w), fp32); z = y / (norm(y) + 1)
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Rewrite `main`."""
        return rewrite_functions(mod, _Halver(mod))


@mutator
class _Halver(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.casts: dict[tuple[relax.Var, str], relax.Expr] = {}
        self.outputs = {mod["main"].body.body}

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var in self.outputs:  # rule 6
            value = self.builder_.emit(self.visit_expr(binding.value))
            binding = relax.VarBinding(binding.var, self.as_type(value, SINGLE))
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        # The mutator's own visit would infer types in between, when operands differ.
        args = [self.visit_expr(arg) for arg in call.args]
        call = relax.Call(call.op, args, call.attrs, call.ty_args)
        if is_call(call, *PRODUCTS):
            dtype = HALF if _terms(call) <= LONGEST else SINGLE  # rule 1
            x, w = (self.as_type(arg, dtype) for arg in call.args)
            if is_call(call, "relax.matmul"):
                return relax.op.matmul(x, w)
            keys = ("strides", "padding", "dilation", "groups")
            return relax.op.nn.conv2d(x, w, **{key: call.attrs[key] for key in keys})
        types = {_dtype(arg) for arg in _tensors(call) if not isinstance(arg, Constant)}
        half = HALF in types and SINGLE not in types
        if is_call(call, *FOLLOWERS):
            return self.retyped(call, HALF if half else SINGLE)  # rule 2
        result = self.retyped(call, SINGLE)  # rule 3
        if is_call(call, *ROUNDED) and half:
            return relax.op.astype(self.builder_.emit(result), HALF)  # rule 4
        return result

    def retyped(self, call: relax.Call, dtype: str) -> relax.Call:
        """Return a call with all floating-point operands of one type."""
        args = [self.as_type(arg, dtype) for arg in call.args]
        return relax.Call(call.op, args, call.attrs, call.ty_args)

    def as_type(self, expr: relax.Expr, dtype: str) -> relax.Expr:
        """Return an operand in a type; what is not a floating-point tensor stays as it is."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.as_type(field, dtype) for field in expr.fields])
        if _dtype(expr) not in (HALF, SINGLE) or _dtype(expr) == dtype:
            return expr
        if isinstance(expr, Constant):
            return relax.const(expr.value.numpy().astype(dtype), dtype)
        if (expr, dtype) not in self.casts:
            view = self.lookup_binding(expr)
            if is_call(view, *COPIES):  # rule 5
                args = [self.as_type(view.args[0], dtype), *view.args[1:]]
                cast = relax.Call(view.op, args, view.attrs, view.ty_args)
            else:
                cast = relax.op.astype(expr, dtype)
            self.casts[expr, dtype] = self.builder_.emit(cast)
        return self.casts[expr, dtype]


def _tensors(call: relax.Call) -> list[relax.Expr]:
    """Return the operands of a call, those in tuples too."""
    return [
        each
        for arg in call.args
        for each in (arg.fields if isinstance(arg, relax.Tuple) else [arg])
    ]


def _dtype(expr: relax.Expr) -> str:
    """Return the type of a tensor's elements, "" of anything else."""
    return str(expr.ty.dtype) if isinstance(expr.ty, relax.TensorType) else ""


def _terms(product: relax.Call) -> int:
    """Return how many terms are added up in float16 for each element of a product."""
    x, w = product.args
    if not is_call(product, "relax.nn.conv2d"):
        return extents(x)[-1]
    channels, *window = extents(w)[1:]
    divided = prod(window) == 1 or any(map(int, product.attrs.padding))
    return (chunk_extent(channels, prod(window)) if divided else channels) * prod(window)
