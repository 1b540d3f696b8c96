"""Complex numbers as pairs of real ones; Fourier transforms as products with their matrices."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

aten = torch.ops.aten


@dataclass
class ComplexPair:
    """A complex tensor: real and imaginary part, of one shape."""

    real: Tensor
    imag: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> ComplexPair:
        """Return what a linear real function makes of both parts."""
        return ComplexPair(function(self.real), function(self.imag))


def split_complex(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program that computes the same with real tensors only.

    Without complex numbers it is the program itself.

    Args:
        program: Decomposed; one image in, one out, both real.

    Raises:
        NotImplementedError: An operator has no form on pairs.
    """
    if not any(_is_complex(node) for node in program.graph.nodes):
        return program
    names = program.graph_signature.user_inputs
    image = next(node for node in program.graph.nodes if node.name in names)
    return torch.export.export(_Real(program.module()), (torch.zeros(image.meta["val"].shape),))


def lacks_form(node: fx.Node) -> bool:
    """Whether an operator on complex numbers, in a decomposed program, has no form on pairs."""
    return is_split(node) and node.target not in OPERATORS.keys() | LAYOUTS | {operator.getitem}


def is_split(node: fx.Node) -> bool:
    """Whether an operator of a decomposed program works on complex numbers."""
    return any(map(_is_complex, (node, *node.all_input_nodes)))


def _is_complex(node: fx.Node) -> bool:
    values = pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(each, Tensor) and each.is_complex() for each in values)


class _Real(nn.Module):
    """A module that interprets a graph with pairs in place of complex tensors."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        self.graph_module = graph
        # Buffers of the graph would be exported with it as they are, used or not.
        self.stored = [name for name, value in graph.state_dict().items() if value.is_complex()]
        for index, name in enumerate(self.stored):
            path, _, leaf = name.rpartition(".")
            owner = graph.get_submodule(path)
            value = getattr(owner, leaf).detach()
            delattr(owner, leaf)
            self.register_buffer(f"real_{index}", value.real.clone())
            self.register_buffer(f"imag_{index}", value.imag.clone())

    def pairs(self) -> dict[str, ComplexPair]:
        """Return the graph's complex weights, by name."""
        return {
            name: ComplexPair(*(self.get_buffer(f"{part}_{index}") for part in ("real", "imag")))
            for index, name in enumerate(self.stored)
        }

    def forward(self, image: Tensor) -> Any:
        return _Interpreter(self.graph_module, self.pairs()).run(image)


class _Interpreter(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, weights: Mapping[str, ComplexPair]) -> None:
        super().__init__(graph)
        self.weights = weights

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in self.weights:
            return self.weights[target]
        value = super().get_attr(target, args, kwargs)
        complex_ = isinstance(value, Tensor) and value.is_complex()
        return ComplexPair(value.real.contiguous(), value.imag.contiguous()) if complex_ else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args = pytree.tree_map_only(complex, _pair, args)
        leaves = pytree.tree_leaves(
            (args, kwargs), is_leaf=lambda each: isinstance(each, ComplexPair)
        )
        pairs = any(isinstance(each, ComplexPair) for each in leaves)
        if target in OPERATORS and (pairs or target in MAKERS):
            return OPERATORS[target](*args, **kwargs)
        if not pairs:
            return super().call_function(target, args, kwargs)
        if target in LAYOUTS:
            real, imag = (
                target(*(_part(each, name) for each in args), **kwargs) for name in ("real", "imag")
            )
            if isinstance(real, Tensor):
                return ComplexPair(real, imag)
            return [ComplexPair(*parts) for parts in zip(real, imag, strict=True)]
        if target is operator.getitem:
            return args[0][args[1]]
        raise NotImplementedError(f"{target} of complex numbers")


def _part(value: Any, name: str) -> Any:
    """Return one part of every pair in an argument."""
    if isinstance(value, (list, tuple)):
        return type(value)(_part(each, name) for each in value)
    return getattr(value, name) if isinstance(value, ComplexPair) else value


LAYOUTS = {
    *(aten.view.default, aten.reshape.default, aten.permute.default, aten.transpose.int),
    *(aten.expand.default, aten.squeeze.dims, aten.squeeze.dim, aten.unsqueeze.default),
    *(aten.slice.Tensor, aten.select.int, aten.cat.default, aten.clone.default, aten.neg.default),
    *(aten.index.Tensor, aten.index_select.default, aten.gather.default, aten.flip.default),
    *(aten.roll.default, aten.constant_pad_nd.default),
    *(aten.sum.dim_IntList, aten.mean.dim, aten.alias.default, aten.detach.default),
    *(aten.split_with_sizes.default, aten.repeat.default, aten.slice_scatter.default),
    aten.select_scatter.default,
}
"""What may be done to both parts separately."""


def _pair(value: Any) -> ComplexPair:
    if isinstance(value, ComplexPair):
        return value
    if isinstance(value, complex):
        return ComplexPair(torch.tensor(value.real), torch.tensor(value.imag))
    real = value if isinstance(value, Tensor) else torch.tensor(float(value))
    return ComplexPair(real, torch.zeros_like(real))


def _add(a: Any, b: Any, alpha: float = 1) -> ComplexPair:
    first, second = _pair(a), _pair(b)
    return ComplexPair(first.real + alpha * second.real, first.imag + alpha * second.imag)


def _sub(a: Any, b: Any, alpha: float = 1) -> ComplexPair:
    return _add(a, b, -alpha)


def _mul(a: Any, b: Any) -> ComplexPair:
    if isinstance(a, ComplexPair) and isinstance(b, ComplexPair):
        return ComplexPair(a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real)
    pair, real = (a, b) if isinstance(a, ComplexPair) else (b, a)
    product: ComplexPair = pair.map(lambda part: part * real)
    return product


def _div(a: Any, b: Any) -> ComplexPair:
    if isinstance(b, ComplexPair):
        square = b.real * b.real + b.imag * b.imag
        return _mul(_pair(a), ComplexPair(b.real / square, -b.imag / square))
    quotient: ComplexPair = a.map(lambda part: part / b)
    return quotient


def _where(condition: Tensor, a: Any, b: Any) -> ComplexPair:
    first, second = _pair(a), _pair(b)
    real, imag = (first.real, second.real), (first.imag, second.imag)
    return ComplexPair(torch.where(condition, *real), torch.where(condition, *imag))


def _polar(size: Tensor, angle: Tensor) -> ComplexPair:
    return ComplexPair(size * angle.cos(), size * angle.sin())


def _product(a: ComplexPair, b: ComplexPair) -> ComplexPair:
    return ComplexPair(a.real @ b.real - a.imag @ b.imag, a.real @ b.imag + a.imag @ b.real)


def _abs(x: ComplexPair) -> Tensor:
    return (x.real * x.real + x.imag * x.imag).sqrt()


def _power(x: ComplexPair, exponent: float) -> ComplexPair:
    """Turn and stretch; the square, which is common, is a product."""
    if exponent == 2:
        return _mul(x, x)
    return _polar(_abs(x) ** exponent, torch.atan2(x.imag, x.real) * exponent)


def _copy(x: ComplexPair, y: Any) -> ComplexPair:
    return _pair(y).map(lambda part: part.expand(x.real.shape))


def _full(size: list[int], value: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    if dtype is None or not dtype.is_complex:
        return torch.full(size, value, dtype=dtype)
    return _pair(value).map(lambda part: part.expand(size).clone())


def _matrix(extent: int, sign: int, kind: torch.dtype) -> ComplexPair:
    """Return the matrix of a discrete Fourier transform, (extent, extent)."""
    index = torch.arange(extent)
    angle = (index[:, None] * index % extent).double() * (sign * 2 * math.pi / extent)
    # Quarter turns are exact: the spectrum of two real numbers is real.
    cos, sin = (part.where(part.abs() > 1e-12, 0.0) for part in (angle.cos(), angle.sin()))
    return ComplexPair(cos.to(kind), sin.to(kind))


def _to_copy(x: Any, dtype: torch.dtype | None = None, **options: Any) -> Any:
    if dtype is not None and dtype.is_complex:
        return _pair(x)
    return aten._to_copy.default(x, dtype=dtype, **options)


def _transform(x: ComplexPair, dim: list[int], sign: int) -> ComplexPair:
    for axis in dim:
        matrix = _matrix(x.real.shape[axis], sign, x.real.dtype)
        moved = x.map(lambda part, axis=axis: part.movedim(axis, -1))  # type: ignore[misc]
        y = _product(moved, matrix)
        x = y.map(lambda part, axis=axis: part.movedim(-1, axis))  # type: ignore[misc]
    return x


def _scaled(x: Any, shape: torch.Size, dim: list[int], normalization: int) -> Any:
    """Scale a transform: 0 not at all, 1 by the root of the number of elements, 2 by the number."""
    count = math.prod(shape[axis] for axis in dim)
    factor = (1.0, count**-0.5, 1.0 / count)[normalization]
    return x.map(lambda part: part * factor) if isinstance(x, ComplexPair) else x * factor


def _fft_c2c(x: Any, dim: list[int], normalization: int, forward: bool) -> ComplexPair:
    y = _transform(_pair(x), dim, -1 if forward else 1)
    scaled: ComplexPair = _scaled(y, y.real.shape, dim, normalization)
    return scaled


def _fft_r2c(x: Tensor, dim: list[int], normalization: int, onesided: bool) -> ComplexPair:
    *others, last = dim
    matrix = _matrix(x.shape[last], -1, x.dtype)
    kept = x.shape[last] // 2 + 1 if onesided else x.shape[last]
    rows = x.movedim(last, -1)
    y = ComplexPair(rows @ matrix.real[:, :kept], rows @ matrix.imag[:, :kept])
    y = _transform(y.map(lambda part: part.movedim(-1, last)), others, -1)
    scaled: ComplexPair = _scaled(y, x.shape, dim, normalization)
    return scaled


def _fft_c2r(x: Any, dim: list[int], normalization: int, last_dim_size: int) -> Tensor:
    *others, last = dim
    half = _transform(_pair(x), others, 1).map(lambda part: part.movedim(last, -1))
    matrix = _matrix(last_dim_size, 1, half.real.dtype)
    kept = last_dim_size // 2 + 1
    # Every frequency but the lowest, and the highest of an even number, stands for two.
    twice = torch.full((kept, 1), 2.0, dtype=half.real.dtype)
    twice[0] = 1
    if last_dim_size % 2 == 0:
        twice[-1] = 1
    half = half.map(lambda part: part[..., :kept])
    y = half.real @ (matrix.real[:kept] * twice) - half.imag @ (matrix.imag[:kept] * twice)
    y = y.movedim(-1, last)
    scaled: Tensor = _scaled(y, y.shape, dim, normalization)
    return scaled


MAKERS: dict[Any, Callable[..., Any]] = {
    aten._fft_r2c.default: _fft_r2c,
    aten._fft_c2c.default: _fft_c2c,
    aten._fft_c2r.default: _fft_c2r,
    aten._to_copy.default: _to_copy,
    aten.complex.default: ComplexPair,
    aten.full.default: _full,
    aten.polar.default: _polar,
    aten.view_as_complex.default: lambda x: ComplexPair(x[..., 0], x[..., 1]),
}
"""Operators whose inputs may be real."""

OPERATORS: dict[Any, Callable[..., Any]] = {
    **MAKERS,
    aten.real.default: lambda x: x.real,
    aten.imag.default: lambda x: x.imag,
    aten.view_as_real.default: lambda x: torch.stack([x.real, x.imag], -1),
    aten.conj.default: lambda x: ComplexPair(x.real, -x.imag),
    aten._conj.default: lambda x: ComplexPair(x.real, -x.imag),
    aten.angle.default: lambda x: torch.atan2(x.imag, x.real),
    aten.abs.default: _abs,
    aten.pow.Tensor_Scalar: _power,
    aten.sqrt.default: lambda x: _power(x, 0.5),
    aten.log.default: lambda x: ComplexPair(_abs(x).log(), torch.atan2(x.imag, x.real)),
    aten.reciprocal.default: lambda x: _div(_pair(1.0), x),
    aten.copy.default: _copy,
    aten.exp.default: lambda x: _polar(x.real.exp(), x.imag),
    aten.where.self: _where,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.add.Tensor: _add,
    aten.sub.Tensor: _sub,
    aten.mul.Tensor: _mul,
    aten.div.Tensor: _div,
}
"""Operators that mix the parts, or make complex numbers of real ones or the other way round."""
