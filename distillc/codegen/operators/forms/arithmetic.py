"""Arithmetic: types as torch has them, and functions that TVM lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def is_whole(x: Any) -> bool:
    """Whether a tensor or a number holds whole numbers or truth values."""
    if isinstance(x, Tensor):
        return not (x.is_floating_point() or x.is_complex())
    return isinstance(x, int)


def promote(function: Callable[..., Tensor], x: Any, y: Any, quotient: bool = False) -> Tensor:
    """Change types where torch does: TVM computes in the first operand's type."""
    kind = torch.result_type(x, y)
    if quotient and not kind.is_complex and not kind.is_floating_point:
        kind = torch.float32
    tensors = [each for each in (x, y) if isinstance(each, Tensor)]
    if kind.is_complex or all(each.dtype == kind for each in tensors):
        return NotImplemented
    return function(*(each.to(kind) if isinstance(each, Tensor) else each for each in (x, y)))


def number(value: float, kind: torch.dtype) -> Tensor:
    """Return a number of a type; what a short whole type cannot hold is wrapped, as in torch."""
    if kind.is_floating_point or kind == torch.bool:
        return torch.full((), value, dtype=kind)
    return torch.full((), int(value), dtype=torch.int64).to(kind)


def of_halves(operator: Any, form: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Compute float16 in float32 and round once, as torch does: what is between may not fit.

    Args:
        operator: What is computed in float32.
        form: Its form for all other types; without one the operator stays as it is.
    """

    def apply(*given: Any, **options: Any) -> Any:
        if not any(map(_is_half, given)) or options.get("dtype", torch.float16) not in _HALF:
            return form(*given, **options) if form else NotImplemented
        options.pop("dtype", None)
        wide = [each.to(torch.float32) if _is_half(each) else each for each in given]
        result = operator(*wide, **options)
        if isinstance(result, Tensor):
            return result.to(torch.float16)
        return tuple(each.to(torch.float16) for each in result)

    return apply


_HALF = (torch.float16, None)


def _is_half(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float16


def _add(x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    """Multiply first what is added: TVM 0.27's importer drops the factor."""
    if _of_truths(x, y):
        return x | y if alpha else x
    return promote(torch.add, x, y) if alpha == 1 else x + y * alpha


def _sub(x: Tensor, y: Any, *, alpha: float = 1) -> Tensor:
    return promote(torch.sub, x, y) if alpha == 1 else x - y * alpha


def _mul(x: Tensor, y: Any) -> Tensor:
    if not isinstance(y, Tensor) and y == 0 and x.is_floating_point():
        return torch.where(x.isfinite(), 0.0, math.nan).to(x.dtype)  # TVM takes 0 for all of it
    return x & y if _of_truths(x, y) else promote(torch.mul, x, y)


def _of_truths(x: Tensor, y: Any) -> bool:
    """Tell whether both are truth values, on which LLVM does no arithmetic."""
    return torch.result_type(x, y) == torch.bool


def _largest(x: Tensor, y: Tensor) -> Tensor:
    return x | y if _of_truths(x, y) else NotImplemented


def _smallest(x: Tensor, y: Tensor) -> Tensor:
    return x & y if _of_truths(x, y) else NotImplemented


def _div(x: Tensor, y: Any) -> Tensor:
    if _is_nothing(y):
        return _by_nothing(x, y)
    return promote(torch.div, x, y, quotient=True)


def _is_nothing(y: Any) -> bool:
    return not isinstance(y, Tensor) and y == 0


def _by_nothing(x: Tensor, y: float) -> Tensor:
    """Divide by a literal 0, which TVM refuses: infinities, and NaN of 0."""
    x = x.to(torch.float32) if is_whole(x) else x
    return x * math.copysign(math.inf, y)


def _of_whole(operator: Any) -> Callable[..., Tensor]:
    """Return a form of a division that computes in torch's type: TVM does in the first one's."""

    def apply(x: Tensor, y: Any, **options: Any) -> Tensor:
        kind = torch.result_type(x, y)
        if _is_nothing(y) and kind.is_floating_point:
            quotient = _by_nothing(x.to(kind), y)
            return torch.full_like(quotient, math.nan) if operator in _RESTS else quotient
        second = y.dtype == kind if isinstance(y, Tensor) else kind.is_floating_point
        if kind.is_complex or (x.dtype == kind and second):
            return NotImplemented
        other = y.to(kind) if isinstance(y, Tensor) else number(y, kind)
        result: Tensor = operator(x.to(kind), other, **options)
        return result

    return apply


_RESTS = (aten.remainder.Tensor, aten.fmod.Tensor)


def accumulated_in(x: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return the type in which torch sums and multiplies many elements: whole numbers in int64."""
    return dtype or (torch.int64 if is_whole(x) else x.dtype)


def _reciprocal(x: Tensor) -> Tensor:
    return x.to(torch.float32).reciprocal() if is_whole(x) else NotImplemented


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    """Divide by the longer side first: squares of large numbers do not fit."""
    kind = _of_both(x, y)
    if kind == torch.float16:
        return torch.hypot(x.to(torch.float32), y.to(torch.float32)).to(kind)
    x, y = x.to(kind).abs(), y.to(kind).abs()
    longer, shorter = torch.maximum(x, y), torch.minimum(x, y)
    share = shorter / longer
    plain = (longer > 0) & (longer < math.inf)
    return torch.where(plain, longer * (1 + share * share).sqrt(), longer)


def _of_both(x: Any, y: Any) -> torch.dtype:
    """Return the type of what torch computes of two operands in floats."""
    kind = torch.result_type(x, y)
    return kind if kind.is_floating_point else torch.float32


def _atan2(x: Tensor, y: Tensor) -> Tensor:
    kind = _of_both(x, y)
    if kind == torch.float16:
        return torch.atan2(x.to(torch.float32), y.to(torch.float32)).to(kind)
    return NotImplemented


def _of_truth(operator: Any) -> Callable[..., Tensor]:
    """Return a comparison of truth values as one of whole numbers: LLVM has no other."""

    def compare(x: Tensor, y: Any) -> Tensor:
        if x.dtype != torch.bool:
            return NotImplemented
        other = y.to(torch.int32) if isinstance(y, Tensor) and y.dtype == torch.bool else y
        result: Tensor = operator(x.to(torch.int32), other)
        return result

    return compare


def _sinh(x: Tensor) -> Tensor:
    """Near 0 the difference of two powers would lose what is asked for."""
    if is_whole(x):
        return x.to(torch.float32).sinh()
    return (x.expm1() - (-x).expm1()) / 2


def _cosh(x: Tensor) -> Tensor:
    if is_whole(x):
        return x.to(torch.float32).cosh()
    return (x.exp() + (-x).exp()) / 2


def _elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    """TVM 0.27's importer drops both scales, which are what selu is."""
    if scale == input_scale == 1:
        return NotImplemented
    return torch.where(x > 0, x * scale, (x * input_scale).expm1() * (alpha * scale))


def _copysign(x: Tensor, y: Any) -> Tensor:
    size = x.to(_of_both(x, y)).abs()
    if not isinstance(y, Tensor):
        return -size if math.copysign(1, y) < 0 else size
    return torch.where(_signbit(y), -size, size)


def _signbit(x: Tensor) -> Tensor:
    if is_whole(x):
        return x < 0
    return (x < 0) | ((x == 0) & (x.reciprocal() < 0))  # the reciprocal of -0 is -inf


def _rrelu(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, _: Any = None
) -> Tensor:
    """Take the mean slope; slopes are random in training only."""
    return NotImplemented if training else aten.leaky_relu.default(x, (lower + upper) / 2)


def _bucketize(
    x: Tensor,
    edges: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Count the edges below each number; TVM's own form is a call that no rule schedules."""
    if sorter is not None:
        return NotImplemented
    each, edges = x.unsqueeze(-1), edges.unsqueeze(-2) if edges.dim() > 1 else edges
    below = edges <= each if right or side == "right" else edges < each
    if x.is_floating_point():
        below = below | each.isnan()  # NaN stands behind all edges
    return below.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _cdist(x: Tensor, y: Tensor, p: float, mode: int | None) -> Tensor:
    """Distances of rows (..., N, D) and (..., M, D): (..., N, M)."""
    apart = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == 0:
        return (apart != 0).to(x.dtype).sum(-1)
    if p == math.inf:
        return apart.amax(-1)
    return apart.sum(-1) if p == 1 else (apart**p).sum(-1) ** (1 / p)


def _pdist(x: Tensor, p: float = 2) -> Tensor:
    """Distances of each pair of rows (N, D), in torch's order."""
    first, second = torch.triu_indices(len(x), len(x), 1)
    places = first * len(x) + second
    return torch.index_select(_cdist(x, x, p, None).reshape(-1), 0, places)


def _trilinear(
    x: Tensor, y: Tensor, z: Tensor, *axes: Sequence[int], unroll_dim: int = 1
) -> Tensor:
    """Multiply three tensors, axes put into each, and sum over the last axes given."""
    *put_in, summed = axes
    factors = [x, y, z]
    for number, missing in enumerate(put_in):
        for axis in sorted(missing):
            factors[number] = factors[number].unsqueeze(axis)
    return torch.mul(torch.mul(*factors[:2]), factors[2]).sum(list(summed))


_COMPARISONS = [
    getattr(getattr(aten, name), kind)
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
    for kind in ("Scalar", "Tensor")
]


def _mish(x: Tensor) -> Tensor:
    """Return x tanh(ln(1 + e^x)) with a single exponential: tanh(ln(1 + e)) = n / (n + 2)."""
    e = x.clamp(max=20.0).exp()
    n = e * (e + 2)
    return x * (n / (n + 2))


def _eye(
    rows: int, columns: int | None = None, *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    """Compare places; torch 2.14's own form counts them in a type that it cannot count in."""
    across = torch.arange(rows if columns is None else columns)
    return (torch.arange(rows)[:, None] == across).to(dtype or torch.float32)


def _differs(x: Tensor, y: Tensor) -> Tensor:
    """Ask for NaN in words: TVM believes that nothing differs from itself."""
    if x is y and x.is_floating_point():
        return x.isnan()
    return _of_truth(aten.ne.Tensor)(x, y)


def _equals(x: Tensor, y: Tensor) -> Tensor:
    """See `_differs`."""
    if x is y and x.is_floating_point():
        return x.isnan().logical_not()
    return _of_truth(aten.eq.Tensor)(x, y)


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: _add,
    aten.add.Scalar: lambda x, y, alpha=1: _add(x, y, alpha=alpha),
    aten.sub.Tensor: _sub,
    aten.sub.Scalar: lambda x, y, alpha=1: _sub(x, y, alpha=alpha),
    aten.mul.Tensor: _mul,
    aten.mul.Scalar: _mul,
    aten.div.Tensor: _div,
    aten.div.Scalar: _div,
    aten.reciprocal.default: _reciprocal,
    aten.hypot.default: _hypot,
    aten.atan2.default: _atan2,
    aten.floor_divide.default: _of_whole(aten.floor_divide.default),
    aten.div.Tensor_mode: _of_whole(aten.div.Tensor_mode),
    aten.remainder.Scalar: _of_whole(aten.remainder.Tensor),
    aten.remainder.Tensor: _of_whole(aten.remainder.Tensor),
    aten.fmod.Scalar: _of_whole(aten.fmod.Tensor),
    aten.fmod.Tensor: _of_whole(aten.fmod.Tensor),
    **{each: _of_truth(each) for each in _COMPARISONS},
    aten.ne.Tensor: _differs,
    aten.eq.Tensor: _equals,
    aten.maximum.default: _largest,
    aten.minimum.default: _smallest,
    aten.sinh.default: of_halves(torch.sinh, _sinh),
    aten.cosh.default: of_halves(torch.cosh, _cosh),
    aten.exp2.default: of_halves(torch.exp2, lambda x: (x * math.log(2.0)).exp()),
    aten.erfc.default: of_halves(torch.erfc, lambda x: 1 - x.erf()),
    aten.elu.default: of_halves(aten.elu.default, _elu),
    aten.mish.default: of_halves(aten.mish.default, _mish),
    aten.eye.default: _eye,
    aten.eye.m: _eye,
    aten.fmax.default: lambda x, y: torch.where(y.isnan() | (x > y), x, y),
    aten.fmin.default: lambda x, y: torch.where(y.isnan() | (x < y), x, y),
    aten.copysign.Tensor: _copysign,
    aten.copysign.Scalar: _copysign,
    aten.signbit.default: _signbit,
    aten.rrelu.default: _rrelu,
    aten.heaviside.default: lambda x, at: torch.where(x == 0, at, (x > 0).to(x.dtype)),
    aten.bucketize.Tensor: _bucketize,
    aten.searchsorted.Tensor: lambda edges, x, **given: _bucketize(x, edges, **given),
    aten._cdist_forward.default: _cdist,
    aten._pdist_forward.default: _pdist,
    aten._trilinear.default: _trilinear,
    aten.lerp.Tensor: lambda x, y, share: x + share * (y - x),
    aten.dist.default: lambda x, y, p=2: torch.linalg.vector_norm(x - y, p),
}
