"""Types that torch changes: functions and bounds of whole numbers and truth values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from tvm import relax

from distillc.codegen.operators.forms.arithmetic import is_whole, number, of_halves, promote
from distillc.codegen.operators.lowering import Lowering

aten = torch.ops.aten

_OF_FLOATS = (
    *("exp", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sigmoid", "erf"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "tanh", "asinh", "acosh", "atanh"),
)
"""Functions that torch computes in float32 of whole numbers, and TVM refuses."""


_LACK_HALVES = {"asin", "acos", "atan", "asinh", "acosh", "atanh"}
"""Those of them that LLVM has no form of in float16."""


def _in_floats(name: str) -> Callable[[Tensor], Tensor]:
    function = getattr(torch, name)

    def apply(x: Tensor) -> Tensor:
        return function(x.to(torch.float32)) if is_whole(x) else NotImplemented

    return of_halves(function, apply) if name in _LACK_HALVES else apply


def _power(x: Any, y: Any) -> Tensor:
    """Raise in the type of the result; TVM knows whole powers of whole numbers only."""
    kind = torch.result_type(x, y)
    if kind.is_complex or kind.is_floating_point:
        return promote(torch.pow, x, y)
    if isinstance(y, int) and x.dtype == kind:
        return NotImplemented
    base, exponent = (torch.as_tensor(each, dtype=torch.float64) for each in (x, y))
    return torch.pow(base, exponent).round().to(kind)


def _clamp(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Keep whole numbers in bounds, which TVM takes for infinite where there are none.

    Where the bounds are the wrong way round, all is the upper one.
    """
    kind = x.dtype
    for bound in (low, high):
        kind = kind if bound is None else torch.result_type(torch.empty(0, dtype=kind), bound)
    if not is_whole(x) and (low is None or high is None or low <= high):
        return NotImplemented
    y = x.to(kind)
    y = y if low is None else torch.maximum(y, number(low, kind))
    return y if high is None else torch.minimum(y, number(high, kind))


def _product(operator: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """Multiply matrices of whole numbers in float64; TVM multiplies them in float32."""

    def apply(x: Tensor, y: Tensor) -> Tensor:
        if not is_whole(x):
            return NotImplemented
        product: Tensor = operator(x.to(torch.float64), y.to(torch.float64))
        return product.to(x.dtype)

    return apply


def _clamp_between(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Keep numbers between tensors, in the type that torch promotes all of them to."""
    y = x if low is None else _promoted(torch.maximum, x, low)
    return y if high is None else _promoted(torch.minimum, y, high)


def _promoted(operator: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    kind = torch.result_type(x, y)
    return operator(x.to(kind), y.to(kind))


def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    if x.dtype == y.dtype:
        return NotImplemented
    kind = torch.result_type(x, y)
    return torch.where(condition, x.to(kind), y.to(kind))


def by_doubles(operator: Any) -> Callable[..., Any]:
    """Compute layers of whole numbers in float64; TVM gives float32."""

    def apply(x: Tensor, *others: Any) -> Any:
        if not is_whole(x):
            return NotImplemented
        wide = [
            each.to(torch.float64) if isinstance(each, Tensor) else each for each in (x, *others)
        ]
        result = operator(*wide)
        if isinstance(result, Tensor):
            return result.to(x.dtype)
        return result[0].to(x.dtype), *result[1:]

    return apply


def _addmm(z: Tensor, x: Tensor, y: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Multiply first, in the type of the factors; TVM's importer multiplies in float32."""
    if z.dtype == torch.float32:
        return NotImplemented
    return z * beta + torch.mm(x, y) * alpha


def _negative(x: Tensor) -> Tensor:
    """Wrap numbers below 0 of a type that has none, as torch does."""
    return (-x.to(torch.int32)).to(x.dtype) if x.dtype == torch.uint8 else NotImplemented


def _sign(x: Tensor) -> Tensor:
    """Ask types without numbers below 0 for what is not 0."""
    return (x != 0).to(x.dtype) if x.dtype in (torch.uint8, torch.bool) else NotImplemented


def _never(x: Tensor) -> Tensor:
    """Whole numbers are neither NaN nor infinite."""
    return torch.zeros_like(x, dtype=torch.bool) if is_whole(x) else NotImplemented


def _rest_of_number(x: float, y: Tensor) -> Tensor:
    """Divide a number by a tensor, and keep what is left."""
    kind = torch.result_type(x, y)
    return torch.remainder(torch.full((), x, dtype=kind), y.to(kind))


def _cast(x: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """Wrap floats that a short whole number cannot hold, as torch does; LLVM leaves that open.

    What is bfloat16 in torch stays float32: few CPUs compute in it, and `audit` says so.
    """
    if dtype == torch.bfloat16:
        return x.to(torch.float32)
    if dtype not in _SHORT or not x.is_floating_point():
        return NotImplemented
    bits, lowest = _SHORT[dtype]
    return (((x.to(torch.int32) - lowest) & (2**bits - 1)) + lowest).to(dtype)


_SHORT = {torch.uint8: (8, 0), torch.int8: (8, -128), torch.int16: (16, -(2**15))}
"""Bits and the smallest number of short types."""


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **{getattr(aten, name).default: _in_floats(name) for name in _OF_FLOATS},
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _power,
    aten.pow.Scalar: _power,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: lambda x, high: _clamp(x, None, high),
    aten.clamp.Tensor: _clamp_between,
    aten.clamp_min.Tensor: _clamp_between,
    aten.clamp_max.Tensor: lambda x, high: _clamp_between(x, None, high),
    aten.where.self: _where,
    aten.neg.default: _negative,
    aten.sign.default: _sign,
    aten.isnan.default: _never,
    aten.isinf.default: _never,
    aten.logical_not.default: lambda x: ~x if x.dtype == torch.bool else x == 0,
    aten.max_pool2d_with_indices.default: by_doubles(aten.max_pool2d_with_indices.default),
    aten.max_pool3d_with_indices.default: by_doubles(aten.max_pool3d_with_indices.default),
    aten.addmm.default: _addmm,
    aten.mm.default: _product(aten.mm.default),
    aten.bmm.default: _product(aten.bmm.default),
    aten.remainder.Scalar_Tensor: _rest_of_number,
    aten._to_copy.default: _cast,
    aten._assert_tensor_metadata.default: lambda *_, **__: None,  # of types before these forms
    aten.__lshift__.Scalar: lambda x, by: x * 2**by,
    aten.__rshift__.Scalar: lambda x, by: torch.div(x, 2**by, rounding_mode="floor"),
}


def _convert(context: Lowering, node: fx.Node, importer: Any) -> relax.Var:
    """Multiply matrices and give the product their type; float16 is summed in float32."""
    x, y = (importer.env[each] for each in node.args)
    kind, emit = str(x.ty.dtype.dtype), importer.block_builder.emit
    if kind == "float64":
        return emit(relax.op.matmul(x, y, out_dtype=kind))
    product = emit(relax.op.matmul(x, y, out_dtype="float32"))
    return product if kind == "float32" else emit(relax.op.astype(product, kind))


CONVERSIONS = {aten.mm.default: _convert, aten.bmm.default: _convert}
