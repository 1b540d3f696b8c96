"""Activations, arithmetic, comparisons: one element at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator

ACTIVATIONS = {
    **{
        name: getattr(F, name)
        for name in [
            "relu",
            "relu6",
            "gelu",
            "silu",
            "mish",
            "elu",
            "selu",
            "celu",
            "hardswish",
            "hardsigmoid",
            "hardtanh",
            "softplus",
            "softsign",
            "tanhshrink",
            "softshrink",
            "hardshrink",
            "logsigmoid",
            "leaky_relu",
        ]
    },
    **{
        name: getattr(torch, name)
        for name in [
            "sigmoid",
            "tanh",
            "sin",
            "cos",
            "atan",
            "asinh",
            "erf",
            "abs",
            "neg",
            "square",
            "sign",
            "floor",
            "ceil",
            "round",
            "trunc",
            "frac",
            "sinc",
            "exp2",
            "expm1",
            "sgn",
            "positive",
            "isfinite",
            "signbit",
        ]
    },
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "exp": lambda x: torch.exp(x.clamp(max=3)),
    "sinh": lambda x: torch.sinh(x.clamp(-3, 3)),
    "cosh": lambda x: torch.cosh(x.clamp(-3, 3)),
    "tan": lambda x: torch.tan(x.clamp(-1.2, 1.2)),
    "log": lambda x: torch.log(x.abs() + 0.1),
    "log2": lambda x: torch.log2(x * x + 0.1),
    "log10": lambda x: torch.log10(x.abs() + 0.1),
    "log1p": lambda x: torch.log1p(x.abs()),
    "sqrt": lambda x: torch.sqrt(x.abs() + 0.01),
    "rsqrt": lambda x: torch.rsqrt(x.square() + 0.1),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.2),
    "asin": lambda x: torch.asin(x.clamp(-0.9, 0.9)),
    "acos": lambda x: torch.acos(x.clamp(-0.9, 0.9)),
    "atanh": lambda x: torch.atanh(x.clamp(-0.9, 0.9)),
    "acosh": lambda x: torch.acosh(x.abs() + 1.1),
    "erfc": torch.erfc,
    "logit": lambda x: torch.logit(x.clamp(0.1, 0.9)),
    "threshold": lambda x: F.threshold(x, 0.1, -0.5),
    "rrelu": lambda x: F.rrelu(x, training=False),
    "nan_to_num": torch.nan_to_num,
    "deg2rad": torch.deg2rad,
    "xlogy": lambda x: torch.xlogy(x, x.abs() + 0.1),
    "heaviside": lambda x: torch.heaviside(x, torch.ones_like(x)),
    "logical_not": lambda x: torch.logical_not(x > 0.2).to(x.dtype),
}


@operator("activation")
def activation(draw: Draw, x: Tensor) -> Layer:
    name = draw.one(*ACTIVATIONS)
    function = ACTIVATIONS[name]
    return Layer(name, lambda x: function(x).to(x.dtype))


@operator("activation")
def prelu(draw: Draw, x: Tensor) -> Layer:
    count = draw.one(1, x.shape[1])
    return Layer(described("prelu", {"weights": count}), F.prelu, draw.normal(count, scale=0.3))


@operator("activation")
def softmax(draw: Draw, x: Tensor) -> Layer:
    axis, name = draw.axis(x), draw.one("softmax", "log_softmax", "softmin")
    function = getattr(F, name)
    return Layer(described(name, {"dim": axis}), lambda x: function(x, dim=axis))


@operator("arithmetic")
def scalars(draw: Draw, x: Tensor) -> Layer:
    number, whole = draw.real(0.3, 2.5), draw.some(1, 3)
    ways = {
        f"{number} - x": lambda x: number - x,
        f"{number} / (1 + |x|)": lambda x: number / (1 + x.abs()),
        f"x * {number} + {whole}": lambda x: x * number + whole,
        f"x / {number}": lambda x: x / number,
        f"|x| ** {number}": lambda x: (x.abs() + 0.1) ** number,
        f"x ** {whole}": lambda x: x**whole,
        f"{number} ** x": lambda x: number ** x.clamp(-4, 4),
        f"x ** -{whole}": lambda x: (x.abs() + 0.5) ** -whole,
        f"x % {number}": lambda x: x % number,
        f"fmod(x, {number})": lambda x: torch.fmod(x, number),
        f"x // {number}": lambda x: x // number,
        f"div(x, {number}, trunc)": lambda x: torch.div(x, number, rounding_mode="trunc"),
        f"clamp(-{number}, {whole})": lambda x: x.clamp(-number, whole),
        f"clamp(min={number})": lambda x: x.clamp(min=number),
        f"clamp(max={number})": lambda x: torch.clamp_max(x, number),
        f"add(x, x, alpha={number})": lambda x: torch.add(x, x.sin(), alpha=number),
        f"rsub(x, {number}, alpha={whole})": lambda x: torch.rsub(x, number, alpha=whole),
        f"lerp({number})": lambda x: torch.lerp(x, x.tanh(), number),
        f"copysign({number})": lambda x: torch.copysign(x, torch.tensor(-number, dtype=x.dtype)),
        "quantise to 8 bits": lambda x: (x.clamp(0, 1) * 255).round() / 255,
        "float -> int -> float": lambda x: (x * 4).int().to(x.dtype),
        "int arithmetic": lambda x: ((x * 8).long() % 5 - (x * 8).long() // 3).to(x.dtype),
        "bits": lambda x: ((x * 8).int() & 5 ^ 3 | 1).to(x.dtype),
    }
    name = draw.one(*ways)
    return Layer(name, ways[name])


@operator("arithmetic")
def broadcast(draw: Draw, x: Tensor) -> Layer:
    """With weights of every shape that fits."""
    shape = [extent if draw.chance(0.6) else 1 for extent in x.shape][draw.some(0, x.dim()) :]
    name = draw.one("add", "sub", "mul", "maximum", "minimum", "atan2", "hypot", "div", "fmax")
    function = torch.div if name == "div" else getattr(torch, name)
    weight = 1 + draw.weight(*shape).abs() if name in ("div", "atan2") else draw.weight(*shape)
    return Layer(described(name, {"weight": shape}), function, weight)


@operator("arithmetic")
def fused(draw: Draw, x: Tensor) -> Layer:
    """addcmul, addcdiv, lerp with weights of a channel each."""
    axis = draw.some(0, x.dim() - 1)
    shape = [extent if each == axis else 1 for each, extent in enumerate(x.shape)]
    name = draw.one("addcmul", "addcdiv", "lerp")
    functions = {
        "addcmul": lambda x, w: torch.addcmul(x, x, w, value=0.5),
        "addcdiv": lambda x, w: torch.addcdiv(x, x, 1 + w.abs(), value=-0.5),
        "lerp": lambda x, w: torch.lerp(x, x.abs(), w),
    }
    return Layer(described(name, {"weight": shape}), functions[name], draw.weight(*shape))


@operator("arithmetic")
def comparison(draw: Draw, x: Tensor) -> Layer:
    name, number = draw.one("gt", "ge", "lt", "le", "eq", "ne"), draw.real(-0.5, 0.9)
    compare = getattr(torch, name)
    ways = {
        "float": lambda x: compare(x, number).to(x.dtype),
        "times": lambda x: x * compare(x, number),
        "where": lambda x: torch.where(compare(x, number), x, -2 * x),
        "fill": lambda x: x.masked_fill(compare(x, number), 0.25),
        "both": lambda x: (compare(x, number) & (x < 2) | ~(x > -1)).to(x.dtype) - x,
        "scalar": lambda x: torch.where(compare(x, number), 0.5, x),
    }
    way = draw.one(*ways)
    return Layer(described(name, {"than": number, "way": way}), ways[way])


@operator("arithmetic")
def constants(draw: Draw, x: Tensor) -> Layer:
    """Subgraphs of constants: coordinates, masks, position encodings."""
    way = draw.one("arange", "linspace", "meshgrid", "triangle", "sinusoids", "eye", "parity")
    last = x.shape[-1]

    def run(x: Tensor) -> Tensor:
        places = torch.arange(last)
        if way == "arange":
            return x + places.to(x.dtype) / last
        if way == "linspace":
            return x * torch.linspace(-1, 1, last, dtype=x.dtype)
        if way == "meshgrid":
            rows, columns = torch.meshgrid(torch.arange(x.shape[-2]), places, indexing="ij")
            return x + (rows - columns).to(x.dtype) / 8
        if way == "triangle":
            return x.masked_fill(torch.ones(x.shape[-2:], dtype=torch.bool).triu(1), -0.5)
        if way == "sinusoids":
            return x + torch.sin(places.to(x.dtype) / 100 ** (places.to(x.dtype) / last))
        if way == "eye":
            return x + torch.eye(x.shape[-2], last, dtype=x.dtype)
        return torch.where(places % 2 == 0, x, -x)

    return Layer(described("constants", {"way": way}), run)
