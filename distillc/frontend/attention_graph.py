"""Attention as a pattern in an exported graph, whatever its classes are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx import Node

from distillc.frontend.attention_walks import (
    CHOICES,
    DISTANCES,
    FUSED,
    INVERSE_TRANSFORMS,
    NORMS,
    PRODUCTS,
    SOFTMAXES,
    SUMS,
    THROUGH,
    TRANSFORMS,
    after,
    before,
    is_product,
    is_similarity,
    keeps,
    weighs,
)
from distillc.frontend.graph import operands, operator, shape

AttentionForm = Literal["softmax", "linear", "frequency"]


@dataclass(frozen=True)
class AttentionSite:
    """One attention in the graph.

    Attributes:
        form: `"softmax"`, softmax(q kT) v, or what weighs by another function of q kT; `"linear"`,
            q (kT v), k or q normalised or not; `"frequency"`, the inverse Fourier transform of
            F(q) F(k).
        nodes: The two products and the softmax between them, if it is one operator; a fused one
            stands alone, and so does the product with weights that another attention made; of a
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
        if is_product(node, live) and node not in taken:
            sites += filter(None, [_unfused(node, live, taken) or _reusing(node, live, sites)])
    weighted = {each for site in sites if site.form == "linear" for each in _weights(site, live)}
    return sites, [each for each in refused if each[0] not in weighted]


def _site(form: AttentionForm, nodes: tuple[Node, ...]) -> AttentionSite:
    return AttentionSite(form, nodes, shape(nodes[0]), _contracted(nodes[0]))


def _keeps_scores(node: Node) -> bool:
    return keeps(node) or operator(node) in CHOICES


def _scores(softmax: Node, live: set[Node]) -> Node | None:
    """Walk back from a softmax to the product of q and k, or of queries that are weights and k.

    Several products may be joined under it (row and column), the best keys be chosen before it,
    scores be squashed or normalised, and heads be mixed.
    """
    inputs = softmax.all_input_nodes
    plain = before(inputs, live, lambda each: is_similarity(each, live), _keeps_scores)
    mixing = plain or before(
        inputs,
        live,
        lambda each: is_product(each, live) and shape(each)[-2:] == shape(softmax)[-2:],
        lambda each: _keeps_scores(each) or _mixes_heads(each, softmax),
    )
    return mixing or before(
        inputs,
        live,
        lambda each: (
            (is_similarity(each, live) or _has_learned_queries(each, softmax, live))
            and _size(each) == _size(softmax)
        ),
        weighs,
    )


def _has_learned_queries(product: Node, softmax: Node, live: set[Node]) -> bool:
    """Whether several weights choose among positions: a softmax over those of an activation.

    Positions that choose among weights are a gate.
    """
    if operator(product) not in PRODUCTS - {"einsum"} or min(shape(product)[-2:]) < 2:
        return False
    keys = [index for index, each in enumerate(operands(product)) if each in live]
    axis, rank = softmax.args[1], len(shape(softmax))
    assert isinstance(axis, int)
    return keys == [axis % rank - (rank - 2)]


def _size(node: Node) -> int:
    return math.prod(shape(node))


def _mixed(softmax: Node, live: set[Node]) -> Node | None:
    """Walk on from a softmax to the product with v; heads may be mixed on the way."""
    plain = after(softmax, lambda each: is_similarity(each, live), keeps)
    mixing = plain or after(
        softmax,
        lambda each: (
            is_product(each, live)
            and shape(softmax)[-2:] in [shape(operand)[-2:] for operand in operands(each)]
        ),
        lambda each: keeps(each) or _mixes_heads(each, softmax),
    )
    return mixing or after(
        softmax,
        lambda each: (
            is_product(each, live) and _size(softmax) in [_size(each) for each in operands(each)]
        ),
        weighs,
    )


def _mixes_heads(node: Node, softmax: Node) -> bool:
    """Whether a layer has as many inputs as the softmax has heads, (..., heads, rows, columns)."""
    if operator(node) not in {"linear", "conv2d", "batch_norm"} or len(shape(softmax)) < 4:
        return False
    weight, axis = node.args[1], 0 if operator(node) == "batch_norm" else 1
    return isinstance(weight, Node) and shape(weight)[axis] == shape(softmax)[-3]


def _unfused(product: Node, live: set[Node], taken: set[Node]) -> AttentionSite | None:
    """Return the attention whose last product this is, if no operator is its softmax.

    It is linear where nothing but scales, masks and layouts are between its two products. All
    else weighs the scores: a softmax of single operators, a ReLU, a sparse projection.
    """

    def other(node: Node) -> bool:
        return is_product(node, live) and node not in taken

    for operand in operands(product):
        first = before([operand], live, other)
        if first and not _weighed(operand, first, live):
            return _site("linear", (first, product))
        if first := _scores_of(operand, live, other):
            return _site("softmax", (first, product))
    return None


def _scores_of(weights: Node, live: set[Node], wanted: Callable[[Node], bool]) -> Node | None:
    """Walk back from weights to the matrix of equally many scores that they were made of."""
    return before(
        [weights], live, lambda each: wanted(each) and _size(each) == _size(weights), weighs
    )


def _weighed(weights: Node, scores: Node, live: set[Node]) -> bool:
    """Whether weights are another function of the scores than a multiple."""
    depends, order, frontier = {scores}, dict[Node, None](), [weights]
    while frontier:
        node = frontier.pop()
        if node in live and node not in order and node is not scores and weighs(node):
            order[node] = None
            frontier += node.all_input_nodes
    for node in sorted(order):
        factors = [each for each in node.args if isinstance(each, Node) and each in depends]
        if not depends.isdisjoint(node.all_input_nodes):
            depends.add(node)
            if not keeps(node) or (operator(node) in {"mul", "div"} and len(factors) > 1):
                return True
    return False


def _reusing(product: Node, live: set[Node], sites: list[AttentionSite]) -> AttentionSite | None:
    """Return the attention that multiplies with weights which another one made of its scores."""
    known = {site.nodes[0]: site for site in sites if site.form == "softmax"}
    for operand in operands(product):
        if scores := _scores_of(operand, live, known.__contains__):
            made = known[scores]
            return AttentionSite("softmax", (product,), made.matrix, made.contracted)
    return None


def _weights(site: AttentionSite, live: set[Node]) -> Iterator[Node]:
    """Yield the softmaxes that normalise the queries or keys of a linear attention."""
    for product in site.nodes:
        for operand in operands(product):
            found = before([operand], live, lambda each: operator(each) in SOFTMAXES)
            if found is not None:
                yield found


def _spectra(inverse: Node, live: set[Node]) -> Node | None:
    """Return the product of two transforms of activations that an inverse transform is made of."""

    def transformed(node: Node) -> Node | None:
        return before([node], live, lambda each: operator(each) in TRANSFORMS)

    def is_pair(node: Node) -> bool:
        factors = [each for each in node.all_input_nodes if each in live]
        return operator(node) == "mul" and len(factors) == 2 and all(map(transformed, factors))

    return before(inverse.all_input_nodes, live, is_pair)


def _contracted(product: Node) -> tuple[Node, int]:
    if operator(product) in SUMS:
        source, *dims = product.args[:2]
        assert isinstance(source, Node)
        axis = dims[0][-1] if dims and isinstance(dims[0], list | tuple) and dims[0] else -1
        assert isinstance(axis, int)
        rank = len(shape(source))
        return source.all_input_nodes[0], axis % rank - rank
    first = product.args[0] if operator(product) in DISTANCES else operands(product)[0]
    assert isinstance(first, Node)
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
