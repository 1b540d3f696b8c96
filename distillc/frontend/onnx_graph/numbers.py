"""ONNX graphs in half or double precision, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from distillc.frontend.onnx_graph.bounds import all_nodes, all_tensors
from distillc.frontend.onnx_graph.ends import image_inputs

OTHERS = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}
"""Numbers that are made float32."""


def make_float32(model: onnx.ModelProto) -> list[str]:
    """Make weights, constants, casts, input and output of other precisions float32.

    Args:
        model: With all its data inside; it is changed.

    Returns:
        What was changed, in words.
    """
    found = _other_numbers(model)
    if not found:
        return []
    for tensor in all_tensors(model):
        if tensor.data_type in OTHERS:
            value = _single(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for attribute in _kinds(model):
        if attribute.i in OTHERS:
            attribute.i = TensorProto.FLOAT
    for info in (*model.graph.input, *model.graph.output):
        if info.type.tensor_type.elem_type in OTHERS:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    del model.graph.value_info[:]  # of the old kinds; none is needed
    return [f"holds {' and '.join(found)}: all of it is computed in float32"]


def _other_numbers(model: onnx.ModelProto) -> list[str]:
    """Return the names of what is to be made float32.

    Float64 only where the image meets it: sizes are computed in it, too.
    """
    graph = model.graph
    kinds = {each.data_type for each in all_tensors(model)} | {each.i for each in _kinds(model)}
    kinds |= {each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)}
    if TensorProto.DOUBLE in kinds and not _meets_double(graph):
        kinds.discard(TensorProto.DOUBLE)
    return [name for kind, name in OTHERS.items() if kind in kinds]


def _meets_double(graph: onnx.GraphProto) -> bool:
    inputs = image_inputs(graph)
    if any(each.type.tensor_type.elem_type == TensorProto.DOUBLE for each in inputs):
        return True
    doubles = {each.name for each in graph.initializer if each.data_type == TensorProto.DOUBLE}
    dependent = {each.name for each in inputs}
    for node in graph.node:
        casts = {each.i for each in node.attribute if each.name == "to"}
        held = {each.t.data_type for each in node.attribute if each.name == "value"}
        if TensorProto.DOUBLE in held:
            doubles.update(node.output)
        if node.op_type not in ("Shape", "Size") and dependent.intersection(node.input):
            dependent.update(node.output)
            if TensorProto.DOUBLE in casts or doubles.intersection(node.input):
                return True
    return False


def _kinds(model: onnx.ModelProto) -> Iterator[onnx.AttributeProto]:
    """Yield the attributes that name a kind of number."""
    graphs = [model.graph.node, *(each.node for each in model.functions)]
    for nodes in graphs:
        for node in all_nodes(nodes):
            if node.op_type != "QuantizeLinear":
                yield from (each for each in node.attribute if each.name in ("to", "dtype"))


def _single(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array in float32; what is finite stays finite, as the floor of a mask."""
    if value.dtype == np.float64:
        limit = np.finfo(np.float32).max
        value = np.where(np.isfinite(value), np.clip(value, -limit, limit), value)
    return value.astype(np.float32)
