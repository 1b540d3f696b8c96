"""Reads and writes at places, sorting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator


@operator("indexing")
def index(draw: Draw, x: Tensor) -> Layer:
    """Constant places of one axis."""
    axis = draw.some(0, x.dim() - 1)
    places = [draw.some(0, x.shape[axis] - 1) for _ in range(draw.some(1, 6))]
    way = draw.one("index_select", "x[idx]", "take_along_dim", "two axes")

    def run(x: Tensor) -> Tensor:
        at = torch.tensor(places)
        if way == "index_select":
            return x.index_select(axis, at)
        if way == "x[idx]":
            return x[(slice(None),) * axis + (at - x.shape[axis],)]
        if way == "two axes":
            return x[..., at % x.shape[-2], :][..., at % x.shape[-1]]
        shape = [1] * x.dim()
        shape[axis] = len(places)
        return torch.take_along_dim(x, at.view(shape), axis)

    return Layer(described(way, {"axis": axis, "places": places}), run)


@operator("indexing")
def gather(draw: Draw, x: Tensor) -> Layer:
    """Places that the values decide."""
    axis = draw.axis(x)
    descending = draw.chance(0.5)
    way = draw.one("sort", "argsort + gather", "quantised", "largest")

    def run(x: Tensor) -> Tensor:
        if way == "sort":
            return x.sort(axis, descending).values
        if way == "argsort + gather":
            return x.sin().gather(axis, x.argsort(axis, descending))
        if way == "largest":
            return x.gather(axis, x.argmax(axis, keepdim=True))
        return x.gather(axis, (x.abs() * 3).long().clamp(0, x.shape[axis] - 1))

    return Layer(described(way, {"axis": axis, "descending": descending}), run)


@operator("indexing")
def topk(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    count, largest = draw.some(1, x.shape[axis]), draw.chance(0.7)
    return Layer(
        described("topk", {"k": count, "axis": axis, "largest": largest}),
        lambda x: x.topk(count, axis, largest).values,
    )


@operator("indexing")
def scatter(draw: Draw, x: Tensor) -> Layer:
    axis = draw.some(0, x.dim() - 1)
    extent = x.shape[axis]
    places = draw.order(extent)
    way = draw.one("scatter", "index_copy", "index_put", "index_fill", "scatter_add", "index_add")

    def run(x: Tensor) -> Tensor:
        at = torch.tensor(places)
        zeros = torch.zeros_like(x)
        shape = [1] * x.dim()
        shape[axis] = extent
        wide = at.view(shape).expand(x.shape)
        if way == "scatter":
            return zeros.scatter(axis, wide, x)
        if way == "scatter_add":
            return zeros.scatter_add(axis, wide, x)
        if way == "index_copy":
            return zeros.index_copy(axis, at, x)
        if way == "index_add":
            return x.index_add(axis, at, x)
        if way == "index_fill":
            return x.index_fill(axis, at[: extent // 2], 0.5)
        return zeros.index_put((slice(None),) * 0 + (at % x.shape[0],), x[at % x.shape[0]])

    return Layer(described(way, {"axis": axis, "places": places}), run)


@operator("indexing")
def embedding(draw: Draw, x: Tensor) -> Layer:
    """A table that quantised values look up."""
    rows, width = draw.some(2, 5), draw.some(1, 4)

    def run(x: Tensor, table: Tensor) -> Tensor:
        return F.embedding((x.sigmoid() * rows).long().clamp(0, rows - 1), table)

    return Layer(described("embedding", {"table": (rows, width)}), run, draw.weight(rows, width))


@operator("indexing")
def one_hot(draw: Draw, x: Tensor) -> Layer:
    axis = draw.axis(x)
    return Layer(
        described("one_hot of argmax", {"axis": axis}),
        lambda x: F.one_hot(x.argmax(axis), x.shape[axis]).to(x.dtype),
    )


@operator("indexing")
def masked(draw: Draw, x: Tensor) -> Layer:
    """A masked read and a write with the same mask."""
    number = draw.real(0.1, 0.8)

    def run(x: Tensor) -> Tensor:
        y = x.clone()
        mask = x > number
        y[mask] = torch.sqrt(x[mask]) * 2
        return y

    return Layer(described("masked write", {"above": number}), run)


@operator("indexing")
def there_and_back(draw: Draw, x: Tensor) -> Layer:
    """Tokens sorted by a score, changed, and put where they came from."""

    def run(x: Tensor, weight: Tensor) -> Tensor:
        tokens = x.flatten(2)
        order = tokens.sum(1).argsort(-1)
        back = order.argsort(-1)
        y = tokens.gather(2, order[:, None].expand_as(tokens)).cumsum(2) * weight
        return y.gather(2, back[:, None].expand_as(tokens)).view_as(x)

    return Layer("sorted tokens", run, draw.weight(x.flatten(2).shape[1], 1))
