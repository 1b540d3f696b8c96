"""ONNX operators that read and write at computed places, or find places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillc.frontend.onnx_graph.operator import (
    Attributes,
    Function,
    Known,
    Operator,
    check_supported,
    integers,
)

GRID_MODES = {"linear": "bilinear", "cubic": "bicubic"}
"""What opset 20 calls torch's modes of sampling."""


def _grid_sample(attributes: Attributes) -> Function:
    given, padding = attributes.get("mode", "linear"), attributes.get("padding_mode", "zeros")
    mode = str(GRID_MODES.get(given, given))
    align_corners = bool(attributes.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, align_corners)


def _gather_elements(attributes: Attributes) -> Function:
    axis = attributes.get("axis", 0)

    def gather(x: Tensor, places: Tensor) -> Tensor:
        return x.gather(axis, _from_front(places, x.shape[axis]))

    return gather


def _gather_nd(attributes: Attributes) -> Function:
    same = attributes.get("batch_dims", 0)
    check_supported(same == 0, f"has {same} axes in common with its places")
    return lambda x, places: x[_coordinates(x, places)]


def _scatter_nd(attributes: Attributes) -> Function:
    reduction = attributes.get("reduction", "none")
    check_supported(reduction in ("none", "add"), f"reduces by {reduction}")

    def scatter(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
        return x.index_put(_coordinates(x, places), values, accumulate=reduction == "add")

    return scatter


REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
"""What torch calls the ways to write several values at one place."""


def _scatter_elements(attributes: Attributes) -> Function:
    axis, reduction = attributes.get("axis", 0), attributes.get("reduction", "none")

    def scatter(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
        places = _from_front(places, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, places, values)
        return x.scatter_reduce(axis, places, values, REDUCTIONS[reduction])

    return scatter


def _coordinates(x: Tensor, places: Tensor) -> tuple[Tensor, ...]:
    parts = places.unbind(-1)
    return tuple(_from_front(each, x.shape[axis]) for axis, each in enumerate(parts))


def _from_front(places: Tensor, extent: int) -> Tensor:
    return torch.where(places < 0, places + extent, places)


def _extreme_place(find: Function) -> Operator:
    def build(attributes: Attributes) -> Function:
        check_supported(not attributes.get("select_last_index"), "takes the last of equal ones")
        keep = bool(attributes.get("keepdims", 1))
        return lambda x: find(x, attributes.get("axis", 0), keep)

    return Operator(build)


def _top(attributes: Attributes) -> Function:
    def top(x: Tensor, count: Known) -> tuple[Tensor, Tensor]:
        axis, largest = attributes.get("axis", -1), bool(attributes.get("largest", 1))
        values, places = x.sort(dim=axis, descending=largest, stable=True)
        number = int(count.item())
        return values.narrow(axis, 0, number), places.narrow(axis, 0, number)

    return top


def _running_sum(attributes: Attributes) -> Function:
    check_supported(not attributes.get("exclusive"), "leaves each element out of its sum")

    def run(x: Tensor, axis: Known) -> Tensor:
        place = int(axis.item())
        if attributes.get("reverse"):
            return x.flip(place).cumsum(place).flip(place)
        return x.cumsum(place)

    return run


def _one_hot(attributes: Attributes) -> Function:
    axis = attributes.get("axis", -1)

    def one_hot(places: Tensor, count: Known, values: Known) -> Tensor:
        number, (off, on) = int(count.item()), torch.from_numpy(values)
        chosen = F.one_hot(_from_front(places.to(torch.int64), number), number).bool()
        return torch.where(chosen, on, off).movedim(-1, axis)

    return one_hot


def _triangle(attributes: Attributes) -> Function:
    upper = attributes.get("upper", 1)

    def cut(x: Tensor, diagonal: Known | None = None) -> Tensor:
        (first,) = integers(diagonal) or [0]
        return x.triu(first) if upper else x.tril(first)

    return cut


OPERATORS: dict[str, Operator] = {
    "ArgMax": _extreme_place(torch.argmax),
    "ArgMin": _extreme_place(torch.argmin),
    "CumSum": Operator(_running_sum, known=(1,)),
    "GatherElements": Operator(_gather_elements),
    "GatherND": Operator(_gather_nd),
    "GridSample": Operator(_grid_sample),
    "OneHot": Operator(_one_hot, known=(1, 2)),
    "ScatterElements": Operator(_scatter_elements),
    "ScatterND": Operator(_scatter_nd),
    "TopK": Operator(_top, known=(1,)),
    "Trilu": Operator(_triangle, known=(1,)),
}
"""By the names of the ONNX operators."""
