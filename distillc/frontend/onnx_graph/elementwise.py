"""ONNX operators that compute each element on its own, or reduce axes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from distillc.frontend.onnx_graph.operator import (
    Attributes,
    Function,
    Known,
    Operator,
    check_supported,
    integers,
    plain,
)


def _numbers(function: Callable[..., Any]) -> Operator:
    return Operator(lambda attributes: function, numbers=True)


def _divide(x: Any, y: Any) -> Any:
    kinds = [each.is_floating_point() for each in (x, y) if isinstance(each, Tensor)]
    return x / y if any(kinds) else torch.div(x, y, rounding_mode="trunc")


def _power(x: Any, exponent: Any) -> Any:
    # What a general power would cost a polynomial of logarithms for.
    if exponent == 2:
        return x * x
    return torch.sqrt(x) if exponent == 0.5 else torch.pow(x, exponent)


def _modulo(attributes: Attributes) -> Function:
    return torch.fmod if attributes.get("fmod") else torch.remainder


def _extreme(pairwise: Callable[[Tensor, Tensor], Tensor], bound: str) -> Operator:
    def both(x: Any, y: Any) -> Any:
        tensor, other = (x, y) if isinstance(x, Tensor) else (y, x)
        if isinstance(other, Tensor):
            return pairwise(tensor, other)
        return torch.clamp(tensor, **{bound: other})

    return Operator(lambda attributes: lambda *xs: functools.reduce(both, xs), numbers=True)


def _where(condition: Tensor, x: Any, y: Any) -> Tensor:
    return torch.where(condition, x, y)


def _clip(attributes: Attributes) -> Function:
    def clip(x: Tensor, low: Known | None = None, high: Known | None = None) -> Tensor:
        if low is None and high is None:
            return x
        bounds = [None if each is None else each.item() for each in (low, high)]
        return torch.clamp(x, *bounds)

    return clip


def _cast(attributes: Attributes) -> Function:
    name = helper.tensor_dtype_to_np_dtype(attributes["to"]).name
    dtype = getattr(torch, name, None)
    check_supported(isinstance(dtype, torch.dtype), f"casts to {name}")
    return lambda x: x.to(dtype)


def _gelu(attributes: Attributes) -> Function:
    return functools.partial(F.gelu, approximate=attributes.get("approximate", "none"))


def _leaky(attributes: Attributes) -> Function:
    return functools.partial(F.leaky_relu, negative_slope=attributes.get("alpha", 0.01))


def _elu(attributes: Attributes) -> Function:
    return functools.partial(F.elu, alpha=attributes.get("alpha", 1.0))


def _hard_sigmoid(attributes: Attributes) -> Function:
    slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return lambda x: torch.clamp(x * slope + offset, 0, 1)


def _swish(attributes: Attributes) -> Function:
    slope = attributes.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(x if slope == 1 else x * slope)


def _reduce(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def build(attributes: Attributes) -> Function:
        keep = bool(attributes.get("keepdims", 1))
        given = attributes.get("axes")
        idle = attributes.get("noop_with_empty_axes")

        def reduce(x: Tensor, axes: Known | None = None) -> Tensor:
            chosen = list(given) if given else integers(axes)
            if not chosen and idle:
                return x
            return function(x, chosen or list(range(x.dim())), keep)

        return reduce

    return Operator(build, known=(1,))


OPERATORS: dict[str, Operator] = {
    "Abs": plain(torch.abs),
    "Ceil": plain(torch.ceil),
    "Cos": plain(torch.cos),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "HardSwish": plain(F.hardswish),
    "Identity": plain(lambda x: x),
    "Log": plain(torch.log),
    "Mish": plain(F.mish),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "PRelu": plain(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(torch.relu),
    "Round": plain(torch.round),
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softplus": plain(F.softplus),
    "Sqrt": plain(torch.sqrt),
    "Tanh": plain(torch.tanh),
    "Cast": Operator(_cast),
    "Clip": Operator(_clip, known=(1, 2)),
    "Dropout": Operator(lambda attributes: lambda x, *rest: x, known=(1, 2)),
    "Elu": Operator(_elu),
    "Gelu": Operator(_gelu),
    "HardSigmoid": Operator(_hard_sigmoid),
    "LeakyRelu": Operator(_leaky),
    "Swish": Operator(_swish),
    "Add": _numbers(operator.add),
    "And": _numbers(operator.and_),
    "Div": _numbers(_divide),
    "Equal": _numbers(operator.eq),
    "Greater": _numbers(operator.gt),
    "GreaterOrEqual": _numbers(operator.ge),
    "Less": _numbers(operator.lt),
    "LessOrEqual": _numbers(operator.le),
    "Max": _extreme(torch.maximum, "min"),
    "Min": _extreme(torch.minimum, "max"),
    "Mod": Operator(_modulo),
    "Mul": _numbers(operator.mul),
    "Or": _numbers(operator.or_),
    "Pow": _numbers(_power),
    "Sub": _numbers(operator.sub),
    "Sum": Operator(lambda attributes: lambda *xs: functools.reduce(operator.add, xs)),
    "Where": _numbers(_where),
    "ReduceL1": _reduce(lambda x, axes, keep: torch.abs(x).sum(axes, keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: (x * x).sum(axes, keep)),
}
"""By the names of the ONNX operators."""
