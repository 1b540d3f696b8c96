"""An ONNX graph as a torch module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from distillc.errors import LoweringError
from distillc.frontend.onnx_graph import elementwise, layers, layouts, places
from distillc.frontend.onnx_graph.known import compute_known
from distillc.frontend.onnx_graph.operator import (
    Attributes,
    Function,
    Known,
    Operator,
    Unsupported,
    failure,
)
from distillc.frontend.onnx_graph.read import Graph

OPERATORS: dict[str, Operator] = {
    **elementwise.OPERATORS,
    **layouts.OPERATORS,
    **layers.OPERATORS,
    **places.OPERATORS,
}

SIZES = ("Shape", "Size")
"""What is known of a value that is not."""

SEVERAL = ("MaxPool", "Split", "TopK")
"""What may have further outputs that are read."""


class OnnxModule(nn.Module):
    """A graph computed node by node, (1, C, H, W) float32 -> (1, C', H', W') float32.

    1. What depends on the image is computed by torch, each node as a module of its own, so that
       messages can name it.
    2. What depends only on constants and sizes is computed in numpy on the way, so that a program
       exported at one size holds the results, and no arithmetic on sizes.

    Args:
        graph: From `read_graph`.

    Raises:
        LoweringError: Operators, or ways to use them, that are not supported; all are listed.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.last = _last_uses(graph)
        self.nodes = nn.ModuleDict()
        self.keys: list[str | None] = []
        # Apart, for torch's ONNX exporter gives values names such as `val_3`, and so do the files.
        self.weights = nn.Module()
        self.names: dict[str, str] = {}
        dependent, refused = {graph.image}, _Refusals(graph)
        for index, node in enumerate(graph.nodes):
            if node.op_type in SIZES or not dependent.intersection(node.input):
                refused.check_known(node)
                self.keys.append(None)
                continue
            dependent.update(node.output)
            function = refused.build(node, dependent)
            if function is None:
                continue
            key = _identifier(node.name or f"{node.op_type}_{index}", self.nodes)
            self.nodes[key] = _Node(node, function)
            self.keys.append(key)
            self._keep_weights(node)
        refused.report()
        self.eval()

    def _keep_weights(self, node: onnx.NodeProto) -> None:
        """Make parameters of the constants that a node computes with."""
        operator = OPERATORS[node.op_type]
        for position, name in enumerate(node.input):
            value = self.graph.constants.get(name)
            arrays = operator.known + operator.either
            if value is None or position in arrays or name in self.names:
                continue
            if operator.numbers and value.size == 1:
                continue
            key = self.names[name] = _identifier(name, self.weights)
            tensor = torch.from_numpy(value)
            self.weights.register_parameter(key, nn.Parameter(tensor, requires_grad=False))

    def forward(self, image: Tensor) -> Tensor:
        values: dict[str, Tensor | Known] = {**self.graph.constants, self.graph.image: image}
        for index, (node, key) in enumerate(zip(self.graph.nodes, self.keys, strict=True)):
            inputs = [values[name] if name else None for name in node.input]
            outputs: Sequence[Any]
            if key is not None:  # rule 1
                outputs = self.nodes[key](*self._operands(node, inputs))
            elif node.op_type in SIZES and isinstance(inputs[0], Tensor):
                outputs = [_size(node, inputs[0])]
            else:  # rule 2
                outputs = compute_known(node, inputs, self.graph.opsets)
            values.update(zip(node.output, outputs, strict=False))  # see `_Refusals`
            for name in self.last[index]:
                values.pop(name, None)
        result: Tensor = values[self.graph.output]  # type: ignore[assignment]
        return result

    def _operands(self, node: onnx.NodeProto, inputs: Sequence[Any]) -> list[Any]:
        """Return a node's inputs as its function takes them."""
        operator = OPERATORS[node.op_type]
        rank = max(each.dim() for each in inputs if isinstance(each, Tensor))
        operands = list(inputs)
        for position, value in enumerate(inputs):
            arrays = operator.known + operator.either
            if not isinstance(value, np.ndarray) or position in arrays:
                continue
            name = node.input[position]
            small = value.size == 1 and value.ndim <= rank and value.dtype != np.bool_
            if operator.numbers and small:
                operands[position] = value.item()
            elif name in self.names:
                operands[position] = self.weights.get_parameter(self.names[name])
            else:
                operands[position] = torch.from_numpy(value)
        return operands


class _Node(nn.Module):
    """One node, by its name in the module tree."""

    def __init__(self, node: onnx.NodeProto, function: Function) -> None:
        super().__init__()
        self.node = node
        self.function = function

    def forward(self, *inputs: Any) -> Sequence[Tensor]:
        try:
            result = self.function(*inputs)
        except Exception as error:
            raise failure(self.node, error) from error
        return (result,) if isinstance(result, Tensor) else result


class _Refusals:
    """What of a graph is not supported, collected until all of it is known."""

    def __init__(self, graph: Graph) -> None:
        self.found: dict[str, list[str]] = {}
        self.read = {graph.output, *(name for node in graph.nodes for name in node.input)}

    def check_known(self, node: onnx.NodeProto) -> None:
        """Note a node that is known but not ONNX's own, or holds graphs."""
        if node.domain not in ("", "ai.onnx"):
            self._note(f"{node.domain}.{node.op_type}", node)
        elif _has_graph(node):
            self._note(node.op_type, node)

    def build(self, node: onnx.NodeProto, dependent: set[str]) -> Function | None:
        """Return the function of a node that depends on the image, or note why there is none."""
        operator = OPERATORS.get(node.op_type)
        if node.domain not in ("", "ai.onnx"):
            self._note(f"{node.domain}.{node.op_type}", node)
        elif operator is None or _has_graph(node):
            self._note(node.op_type, node)
        elif any(dependent.intersection(node.input[i : i + 1]) for i in operator.known):
            self._note(f"{node.op_type} that reads from the image where or how it works", node)
        elif node.op_type not in SEVERAL and self.read.intersection(node.output[1:]) - {""}:
            self._note(f"{node.op_type} with further outputs", node)
        else:
            try:
                return operator.build(_attributes(node))
            except Unsupported as error:
                self._note(f"{node.op_type} that {error}", node)
        return None

    def _note(self, what: str, node: onnx.NodeProto) -> None:
        self.found.setdefault(what, []).append(node.name or node.output[0])

    def report(self) -> None:
        """Raise with all that was noted, if anything was."""
        if not self.found:
            return
        lines = [f"{what}, in {', '.join(names)}" for what, names in sorted(self.found.items())]
        raise LoweringError(
            "ONNX operators that cannot be compiled yet:\n    " + "\n    ".join(lines),
            hint="export the network in float32 as torch.onnx.export writes it, neither quantised "
            "nor optimised for a runtime; rewrite what is left with other operators, or report it",
        )


def _attributes(node: onnx.NodeProto) -> Attributes:
    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    decoded = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in values.items()
    }
    return {**decoded, "outputs": len(node.output)}


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(each.HasField("g") or each.graphs for each in node.attribute)


def _size(node: onnx.NodeProto, value: Tensor) -> Known:
    if node.op_type == "Size":
        return np.array(value.numel(), np.int64)
    attributes = _attributes(node)
    shape = tuple(value.shape)[attributes.get("start", 0) : attributes.get("end")]
    return np.array(shape, np.int64)


def _last_uses(graph: Graph) -> list[list[str]]:
    """Return for each node what no later one reads."""
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last.update({name: index for name in (*node.input, *node.output) if name})
    last.pop(graph.output, None)
    dead: list[list[str]] = [[] for _ in graph.nodes]
    for name, index in last.items():
        dead[index].append(name)
    return dead


def _identifier(name: str, owner: nn.Module) -> str:
    """Return a name of letters, digits and underscores that no attribute of the owner has."""
    base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    base = f"_{base}" if base[0].isdigit() else base
    unique, count = base, 1
    while hasattr(owner, unique):
        count += 1
        unique = f"{base}_{count}"
    return unique
