"""Attention as a pattern in an exported graph: softmax(q k^T) v, whatever its classes are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.fx import Node

PRODUCTS = {"matmul", "bmm", "einsum", "baddbmm", "mm"}
SOFTMAXES = {"softmax", "_softmax", "_safe_softmax"}
FUSED = {
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_native_multi_head_attention",
}
THROUGH = {
    # scale, bias and mask
    "add", "sub", "rsub", "mul", "div", "masked_fill", "where", "clamp", "clamp_min", "neg",
    # shape
    "reshape", "view", "_unsafe_view", "permute", "transpose", "expand", "unsqueeze", "squeeze",
    "flatten", "unflatten", "contiguous", "clone", "slice", "select", "t", "movedim",
    # dtype and dropout
    "to", "_to_copy", "dropout", "native_dropout", "type_as", "getitem", "alias", "detach",
}  # fmt: skip


@dataclass(frozen=True)
class AttentionSite:
    """One attention in the graph.

    Attributes:
        nodes: The q k product, the softmax and the product with v (one fused node stands alone).
        matrix: Shape of the attention matrix, (..., rows, columns).
        contracted: The operand of the q k product that holds queries (or keys), and the axis of it
            that the product sums over, counted from the end.
    """

    nodes: tuple[Node, ...]
    matrix: tuple[int, ...]
    contracted: tuple[Node, int]


def operator(node: Node) -> str:
    """Return the operator's name without namespace, overload and the `_` of in-place ones."""
    if node.op != "call_function":
        return ""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.split("::")[1].removesuffix("_")
    return getattr(target, "__name__", "")


def modules(node: Node) -> tuple[str, ...]:
    """Return the paths of the modules whose call made this node, outermost first, without root."""
    stack = node.meta.get("nn_module_stack") or {}
    # A module called again has "@1" after its path.
    paths = (str(path).partition("@")[0] for path, _ in stack.values())
    return tuple(path for path in paths if path)


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


def find_sites(
    program: torch.export.ExportedProgram, live: set[Node]
) -> tuple[list[AttentionSite], list[tuple[Node, str]]]:
    """Find every attention, and every softmax that is none with the reason.

    Args:
        program: An exported program.
        live: Its activations.
    """
    sites: list[AttentionSite] = []
    refused: list[tuple[Node, str]] = []
    for node in program.graph.nodes:
        name = operator(node)
        if name in FUSED:
            q, k = node.args[:2]
            assert isinstance(q, Node)
            assert isinstance(k, Node)
            matrix = (*shape(q)[:-1], shape(k)[-2])
            sites.append(AttentionSite((node,), matrix, (q, -1)))
        elif name in SOFTMAXES and node in live:
            scores = _scores(node, live)
            if scores is None:
                refused.append((node, "its input is no product of two activations"))
                continue
            mixed = _mixed(node, live)
            if mixed is None:
                refused.append((node, "its result is not multiplied with a third activation"))
                continue
            site = AttentionSite((scores, node, mixed), shape(scores), _contracted(scores))
            sites.append(site)
    return sites, refused


def _is_product(node: Node, live: set[Node]) -> bool:
    operands = [each for each in node.all_input_nodes if each in live]
    return operator(node) in PRODUCTS and len(operands) >= 2


def _scores(softmax: Node, live: set[Node]) -> Node | None:
    """Walk back from a softmax to the q k product it normalises."""
    frontier, seen = list(softmax.all_input_nodes), set()
    while frontier:
        node = frontier.pop(0)
        if node in seen or node not in live:
            continue
        seen.add(node)
        if _is_product(node, live):
            return node
        if operator(node) in THROUGH:
            frontier.extend(node.all_input_nodes)
    return None


def _mixed(softmax: Node, live: set[Node]) -> Node | None:
    """Walk on from a softmax to the product with v."""
    frontier, seen = list(softmax.users), set()
    while frontier:
        node = frontier.pop(0)
        if node in seen:
            continue
        seen.add(node)
        if _is_product(node, live):
            return node
        if operator(node) in THROUGH:
            frontier.extend(node.users)
    return None


def operands(product: Node) -> tuple[Node, Node]:
    """Return what a product multiplies."""
    args = product.args
    pair = args[1] if operator(product) == "einsum" else args[operator(product) == "baddbmm" :]
    assert isinstance(pair, list | tuple)
    first, second = pair[:2]
    assert isinstance(first, Node)
    assert isinstance(second, Node)
    return first, second


def _contracted(product: Node) -> tuple[Node, int]:
    first = operands(product)[0]
    if operator(product) != "einsum":
        return first, -1
    inputs, _, output = str(product.args[0]).replace(" ", "").partition("->")
    labels, others = inputs.split(",")[:2]
    summed = [each for each in labels if each in others and each not in output]
    return first, labels.index(summed[-1]) - len(labels) if summed else -1


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


def is_residual(entering: Node, leaving: Node, nodes: set[Node]) -> bool:
    """Whether the input reaches the output through additions (and layout changes) alone."""
    frontier, seen = [leaving], set()
    while frontier:
        node = frontier.pop()
        if node is entering:
            return True
        if node in seen or node not in nodes:
            continue
        seen.add(node)
        if operator(node) in THROUGH - {"mul", "div", "neg", "where", "masked_fill"}:
            frontier.extend(node.all_input_nodes)
    return False


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
