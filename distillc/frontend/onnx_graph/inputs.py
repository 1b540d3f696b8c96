"""Further inputs of an ONNX file, fixed to constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from distillc.data.picture import Array
from distillc.errors import UsageError
from distillc.frontend.constants import as_tensor


@dataclass(frozen=True)
class Declared:
    """An input as a file declares it.

    Attributes:
        name: Its name.
        kind: Type of its numbers; None of what holds no numbers.
        shape: Its shape, None for an axis whose extent is free.
    """

    name: str
    kind: np.dtype[Any] | None
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(str(each or '?') for each in self.shape)})"


def is_map(declared: Declared, value: Array) -> bool:
    """Whether a constant is a number that fills a map as large as the image, which is free."""
    return len(declared.shape) == 4 and None in declared.shape[2:] and value.shape[2:] == (1, 1)


def as_declared(declared: Declared, value: Any) -> Array:
    """Return a constant as an input is declared.

    A number fills the whole input, free axes are 1: see `is_map`. A list or a tensor may lack the
    axis of the batch.

    Raises:
        UsageError: It has another shape, or is not made of numbers.
    """
    shape = declared.shape
    if declared.kind is not None and isinstance(value, (bool, int, float)):
        if len(shape) == 4 and None in shape[2:]:
            shape = (*shape[:2], None, None)
        return np.full([each or 1 for each in shape], value, declared.kind)
    if declared.kind is None or not isinstance(value, (list, Tensor)):
        raise _wrong(declared, repr(value))
    found = as_tensor(value).numpy().astype(declared.kind)
    for each in (found, found[None]):
        if each.ndim == len(shape) and all(
            wanted in (None, extent) for wanted, extent in zip(shape, each.shape, strict=True)
        ):
            return each
    raise _wrong(declared, str(found.shape))


def _wrong(declared: Declared, what: str) -> UsageError:
    return UsageError(
        f"input {declared.name!r} is {declared}, not {what}",
        where="--input",
        hint="give a number, which fills it, or a list or file of this shape",
    )


def chosen(found: Sequence[Declared], constants: Mapping[str, Any]) -> dict[Declared, Array]:
    """Return the constant of every input that has one.

    Raises:
        UsageError: The file has no input of a name, or none is left for the image; or as of
            `as_declared`.
    """
    known = {each.name: each for each in found}
    unknown = [name for name in constants if name not in known]
    if unknown or known.keys() <= constants.keys():
        what = f"no input {unknown[0]!r}" if unknown else "no input left for the image"
        raise UsageError(
            f"the ONNX graph has {what}", where="--input", hint=f"its inputs are {', '.join(known)}"
        )
    return {known[name]: as_declared(known[name], value) for name, value in constants.items()}


def fix(model: onnx.ModelProto, constants: Mapping[str, Any]) -> None:
    """Make initialisers of further inputs of a model, in place; maps are expanded by nodes.

    Raises:
        UsageError: As of `chosen`.
    """
    graph = model.graph
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    found = chosen([_declared(each) for each in inputs], constants)
    image = next(each.name for each in inputs if each.name not in constants)
    for declared, value in found.items():
        name = declared.name
        stored = f"{name}/number" if is_map(declared, value) else name
        graph.initializer.append(numpy_helper.from_array(value, stored))
        if stored != name:
            _expand(graph, image, stored, name)
    left = [each for each in graph.input if each.name not in constants]
    del graph.input[:]
    graph.input.extend(left)


def _expand(graph: onnx.GraphProto, image: str, stored: str, name: str) -> None:
    """Put nodes before all others that make a number a map of the image's height and width."""
    numbers = {"/ones": [1, 1], "/start": [2], "/end": [4]}
    for part, values in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name + part))
    nodes = [
        helper.make_node("Shape", [image], [f"{name}/whole"]),
        helper.make_node(
            "Slice", [f"{name}/{each}" for each in ("whole", "start", "end")], [f"{name}/size"]
        ),
        helper.make_node("Concat", [f"{name}/ones", f"{name}/size"], [f"{name}/shape"], axis=0),
        helper.make_node("Expand", [stored, f"{name}/shape"], [name]),
    ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _declared(value: onnx.ValueInfoProto) -> Declared:
    kind = value.type.tensor_type
    numbers = kind.elem_type not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
    return Declared(
        value.name,
        np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if numbers else None,
        tuple(each.dim_value or None for each in kind.shape.dim),
    )
