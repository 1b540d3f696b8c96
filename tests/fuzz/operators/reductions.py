"""Reductions and running sums."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator

OF_AXES = {
    name: getattr(torch, name)
    for name in ["mean", "sum", "amax", "amin", "logsumexp", "std", "var", "nansum"]
} | {
    "norm": lambda x, a, keepdim: torch.linalg.vector_norm(x, 2, a, keepdim),
    "norm 1": lambda x, a, keepdim: torch.linalg.vector_norm(x, 1, a, keepdim),
    "norm inf": lambda x, a, keepdim: torch.linalg.vector_norm(x, float("inf"), a, keepdim),
    "biased var": lambda x, a, keepdim: torch.var(x, a, correction=0, keepdim=keepdim),
    "var_mean": lambda x, a, keepdim: sum(torch.var_mean(x, a, correction=0, keepdim=keepdim)),
    "count": lambda x, a, keepdim: (x > 0.3).sum(a, keepdim=keepdim).to(x.dtype),
}
OF_AXIS = {
    "max": lambda x, a, keepdim: x.max(a, keepdim).values,
    "min": lambda x, a, keepdim: x.min(a, keepdim).values,
    "argmax": lambda x, a, keepdim: x.argmax(a, keepdim).to(x.dtype) / 4,
    "argmin": lambda x, a, keepdim: x.argmin(a, keepdim).to(x.dtype) / 4,
    "prod": lambda x, a, keepdim: torch.sigmoid(x).prod(a, keepdim),
    "all": lambda x, a, keepdim: (x > -0.5).all(a, keepdim).to(x.dtype),
    "any": lambda x, a, keepdim: (x > 0.7).any(a, keepdim).to(x.dtype),
    "median": lambda x, a, keepdim: x.median(a, keepdim).values,
    "aminmax": lambda x, a, keepdim: torch.sub(*reversed(torch.aminmax(x, dim=a, keepdim=keepdim))),
}
RUNNING = {
    "cumsum": lambda x, a: x.cumsum(a) / 3,
    "cumprod": lambda x, a: torch.sigmoid(x).cumprod(a),
    "cummax": lambda x, a: x.cummax(a).values,
    "logcumsumexp": lambda x, a: x.logcumsumexp(a),
    "diff": lambda x, a: x.diff(dim=a),
    "reversed cumsum": lambda x, a: x.flip(a).cumsum(a).flip(a) / 3,
}


@operator("reduction")
def of_axes(draw: Draw, x: Tensor) -> Layer:
    """A reduction of some axes, then often an elementwise operator with what was reduced."""
    name, keep = draw.one(*OF_AXES), draw.chance(0.7)
    axes = draw.order(x.dim())[: draw.some(1, max(1, x.dim() - 1))]
    axes = [axis - x.dim() if draw.chance(0.3) else axis for axis in axes]
    after = draw.one("", "sub", "mul") if keep else ""
    reduce = OF_AXES[name]

    def run(x: Tensor) -> Tensor:
        y = reduce(x, axes, keepdim=keep)
        return getattr(torch, after)(x, y) if after else y

    given = {"axes": axes, "keepdim": keep, "after": after}
    return Layer(described(name, given), run)


@operator("reduction")
def of_axis(draw: Draw, x: Tensor) -> Layer:
    name, keep, axis = draw.one(*OF_AXIS), draw.chance(0.6), draw.axis(x)
    after = draw.one("", "sub", "mul") if keep else ""
    reduce = OF_AXIS[name]

    def run(x: Tensor) -> Tensor:
        y = reduce(x, axis, keep)
        return getattr(torch, after)(x, y) if after else y

    given = {"axis": axis, "keepdim": keep, "after": after}
    return Layer(described(name, given), run)


@operator("reduction")
def of_everything(draw: Draw, x: Tensor) -> Layer:
    name = draw.one("mean", "sum", "max", "min", "std", "var", "argmax", "norm")
    return Layer(
        f"x + all of {name}",
        lambda x: x + torch.tanh(getattr(torch, name)(x).to(x.dtype)),
    )


@operator("reduction")
def running(draw: Draw, x: Tensor) -> Layer:
    name, axis = draw.one(*RUNNING), draw.axis(x)
    function = RUNNING[name]
    return Layer(described(name, {"axis": axis}), lambda x: function(x, axis))
