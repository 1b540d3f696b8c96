"""Attention as a pattern in an exported graph, whatever its classes are named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx import Node

from distillc.frontend.graph import operands, operator, shape

PRODUCTS = {"matmul", "bmm", "einsum", "baddbmm", "mm"}
SUMS = {"sum", "mean"}
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
    "flatten", "unflatten", "contiguous", "clone", "slice", "select", "chunk", "split", "unbind",
    "split_with_sizes", "t", "movedim", "roll", "mT",
    # dtype and dropout
    "to", "_to_copy", "dropout", "native_dropout", "type_as", "getitem", "alias", "detach",
}  # fmt: skip
NORMS = {"layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm"}
TRANSFORMS = {"fft_rfft", "fft_rfft2", "fft_rfftn", "fft_fft", "fft_fft2", "fft_fftn"}
INVERSE_TRANSFORMS = {
    "fft_irfft", "fft_irfft2", "fft_irfftn", "fft_ifft", "fft_ifft2", "fft_ifftn",
}  # fmt: skip

AttentionForm = Literal["softmax", "linear", "frequency"]


@dataclass(frozen=True)
class AttentionSite:
    """One attention in the graph.

    Attributes:
        form: `"softmax"`, softmax(q kT) v; `"linear"`, q (kT v), k or q normalised or not;
            `"frequency"`, the inverse Fourier transform of F(q) F(k).
        nodes: The two products and the softmax between them (one fused node stands alone); of a
            frequency attention the product and the inverse transform.
        matrix: Shape of what the first product gives, (..., rows, columns).
        contracted: The operand of the first product that holds queries (or keys), and the axis of
            it that the product sums over, counted from the end.
    """

    form: AttentionForm
    nodes: tuple[Node, ...]
    matrix: tuple[int, ...]
    contracted: tuple[Node, int]


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
            sites.append(AttentionSite("softmax", (node,), matrix, (q, -1)))
        elif name in SOFTMAXES and node in live:
            scores = _scores(node, live)
            if scores is None:
                refused.append((node, "its input is no product of two activations"))
                continue
            mixed = _mixed(node, live)
            if mixed is None:
                refused.append((node, "its result is not multiplied with a third activation"))
                continue
            sites.append(_site("softmax", (scores, node, mixed)))
        elif name in INVERSE_TRANSFORMS and (product := _spectra(node, live)):
            sites.append(AttentionSite("frequency", (product, node), shape(node), (product, -1)))
    taken = {node for site in sites for node in site.nodes}
    for node in program.graph.nodes:
        if _is_product(node, live) and node not in taken and (pair := _linear(node, live, taken)):
            sites.append(_site("linear", pair))
    weighted = {each for site in sites if site.form == "linear" for each in _weights(site, live)}
    return sites, [each for each in refused if each[0] not in weighted]


def _site(form: AttentionForm, nodes: tuple[Node, ...]) -> AttentionSite:
    return AttentionSite(form, nodes, shape(nodes[0]), _contracted(nodes[0]))


def _is_product(node: Node, live: set[Node]) -> bool:
    operands = [each for each in node.all_input_nodes if each in live]
    return operator(node) in PRODUCTS and len(operands) >= 2


def _is_similarity(node: Node, live: set[Node]) -> bool:
    """Whether a node is a product, or a sum of the products of elements of two activations."""
    source = node.args[0] if operator(node) in SUMS else None
    if isinstance(source, Node) and operator(source) == "mul":
        return len([each for each in source.all_input_nodes if each in live]) == 2
    return _is_product(node, live)


def _keeps(node: Node) -> bool:
    return operator(node) in THROUGH


def _keeps_scores(node: Node) -> bool:
    return _keeps(node) or operator(node) in {"cat", "concat", "stack", "topk", "sort", "gather"}


def _before(
    nodes: Iterable[Node],
    live: set[Node],
    wanted: Callable[[Node], bool],
    through: Callable[[Node], bool] = _keeps,
) -> Node | None:
    """Walk back from some nodes, through what leaves an attention one, to the first wanted."""
    return _first(
        [each for each in nodes if each in live],
        wanted,
        through,
        lambda node: [each for each in node.all_input_nodes if each in live],
    )


def _first(
    nodes: Iterable[Node],
    wanted: Callable[[Node], bool],
    through: Callable[[Node], bool],
    neighbours: Callable[[Node], Iterable[Node]],
) -> Node | None:
    """Return the nearest node that is wanted, breadth first from some."""
    frontier, seen = list(nodes), set()
    while frontier:
        node = frontier.pop(0)
        if node in seen:
            continue
        seen.add(node)
        if wanted(node):
            return node
        if through(node):
            frontier.extend(neighbours(node))
    return None


def _scores(softmax: Node, live: set[Node]) -> Node | None:
    """Walk back from a softmax to the product of q and k.

    Several products may be joined under it (row and column), the best keys be chosen before it, and
    heads be mixed.
    """
    inputs = softmax.all_input_nodes
    plain = _before(inputs, live, lambda each: _is_similarity(each, live), _keeps_scores)
    return plain or _before(
        inputs,
        live,
        lambda each: _is_product(each, live) and shape(each)[-2:] == shape(softmax)[-2:],
        lambda each: _keeps_scores(each) or _mixes_heads(each, softmax),
    )


def _mixed(softmax: Node, live: set[Node]) -> Node | None:
    """Walk on from a softmax to the product with v; heads may be mixed on the way."""
    plain = _after(softmax, lambda each: _is_similarity(each, live), _keeps)
    return plain or _after(
        softmax,
        lambda each: (
            _is_product(each, live)
            and shape(softmax)[-2:] in [shape(operand)[-2:] for operand in operands(each)]
        ),
        lambda each: _keeps(each) or _mixes_heads(each, softmax),
    )


def _mixes_heads(node: Node, softmax: Node) -> bool:
    """Whether a layer has as many inputs as the softmax has heads, (..., heads, rows, columns)."""
    if operator(node) not in {"linear", "conv2d", "batch_norm"} or len(shape(softmax)) < 4:
        return False
    weight, axis = node.args[1], 0 if operator(node) == "batch_norm" else 1
    return isinstance(weight, Node) and shape(weight)[axis] == shape(softmax)[-3]


def _after(
    node: Node, wanted: Callable[[Node], bool], through: Callable[[Node], bool]
) -> Node | None:
    """Walk on from a node to the first wanted."""
    return _first(node.users, wanted, through, lambda each: each.users)


def _linear(product: Node, live: set[Node], taken: set[Node]) -> tuple[Node, Node] | None:
    """Return kT v and its product with q, where a product is such a one."""

    def other(node: Node) -> bool:
        return _is_product(node, live) and node not in taken

    for operand in operands(product):
        if first := _before([operand], live, other):
            return first, product
    return None


def _weights(site: AttentionSite, live: set[Node]) -> Iterator[Node]:
    """Yield the softmaxes that normalise the queries or keys of a linear attention."""
    for product in site.nodes:
        for operand in operands(product):
            found = _before([operand], live, lambda each: operator(each) in SOFTMAXES)
            if found is not None:
                yield found


def _spectra(inverse: Node, live: set[Node]) -> Node | None:
    """Return the product of two transforms of activations that an inverse transform is made of."""

    def transformed(node: Node) -> Node | None:
        return _before([node], live, lambda each: operator(each) in TRANSFORMS)

    def is_pair(node: Node) -> bool:
        factors = [each for each in node.all_input_nodes if each in live]
        return operator(node) == "mul" and len(factors) == 2 and all(map(transformed, factors))

    return _before(inverse.all_input_nodes, live, is_pair)


def _contracted(product: Node) -> tuple[Node, int]:
    if operator(product) in SUMS:
        source, *dims = product.args[:2]
        assert isinstance(source, Node)
        axis = dims[0][-1] if dims and isinstance(dims[0], list | tuple) and dims[0] else -1
        assert isinstance(axis, int)
        rank = len(shape(source))
        return source.all_input_nodes[0], axis % rank - rank
    first = operands(product)[0]
    if operator(product) != "einsum":
        return first, -1
    inputs, _, output = str(product.args[0]).replace(" ", "").partition("->")
    labels, others = inputs.split(",")[:2]
    summed = [each for each in labels if each in others and each not in output]
    return first, labels.index(summed[-1]) - len(labels) if summed else -1


def is_residual(entering: Node, leaving: Node, nodes: set[Node]) -> bool:
    """Whether the input reaches the output through only additions, layout changes and norms."""
    frontier, seen = [leaving], set()
    while frontier:
        node = frontier.pop()
        if node is entering:
            return True
        if node in seen or node not in nodes:
            continue
        seen.add(node)
        if operator(node) in (THROUGH | NORMS) - {"mul", "div", "neg", "where", "masked_fill"}:
            frontier.extend(node.all_input_nodes)
    return False
