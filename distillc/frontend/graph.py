"""Reading an exported graph: operators, shapes, the modules that its nodes came from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import Node


def operator(node: Node) -> str:
    """Return the operator's name without namespace, overload and the `_` of in-place ones."""
    if node.op != "call_function":
        return ""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1].removesuffix("_")
    return getattr(target, "__name__", "")


def operands(product: Node) -> tuple[Node, Node]:
    """Return what a product multiplies."""
    args = product.args
    pair = args[1] if operator(product) == "einsum" else args[operator(product) == "baddbmm" :]
    assert isinstance(pair, list | tuple)
    first, second = pair[:2]
    assert isinstance(first, Node)
    assert isinstance(second, Node)
    return first, second


def shape(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor, `()` for none and for one that depends on values."""
    value = node.meta.get("val")
    extents = tuple(value.shape) if isinstance(value, torch.Tensor) else ()
    return extents if all(isinstance(extent, int) for extent in extents) else ()


def activations(program: torch.export.ExportedProgram) -> set[Node]:
    """Return the nodes whose value depends on the input image."""
    inputs = set(program.graph_signature.user_inputs)
    found: set[Node] = set()
    for node in program.graph.nodes:
        if (node.op == "placeholder" and node.name in inputs) or any(
            each in found for each in node.all_input_nodes
        ):
            found.add(node)
    return found


def modules(node: Node) -> tuple[str, ...]:
    """Return the paths of the modules whose call made this node, outermost first, without root."""
    stack = node.meta.get("nn_module_stack") or {}
    # A module called again has "@1" after its path.
    paths = (str(path).partition("@")[0] for path, _ in stack.values())
    return tuple(path for path in paths if path)


def enclosing(path: str) -> Iterator[str]:
    """Yield a module path and those of the modules around it, innermost first, without root."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def calls(program: torch.export.ExportedProgram) -> dict[str, list[set[Node]]]:
    """Return for each module path the nodes that each of its calls made, in order."""
    found: dict[str, dict[str, set[Node]]] = {}
    for node in program.graph.nodes:
        # The key tells calls of one module apart, the path in the value does not.
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            plain = str(path).partition("@")[0]
            found.setdefault(plain, {}).setdefault(str(key), set()).add(node)
    return {path: list(each.values()) for path, each in found.items() if path}


def boundary(nodes: set[Node], live: set[Node]) -> tuple[list[Node], list[Node]]:
    """Return the activations that enter a set of nodes, and its nodes that are used outside."""
    entering = dict.fromkeys(
        each
        for node in nodes
        for each in node.all_input_nodes
        if each in live and each not in nodes
    )
    leaving = [node for node in nodes if any(user not in nodes for user in node.users)]
    return list(entering), leaving
