"""Walks through an exported graph along what leaves an attention one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch.fx import Node

from distillc.frontend.graph import operator

PRODUCTS = {"matmul", "bmm", "einsum", "baddbmm", "mm"}
DISTANCES = {"cdist", "_euclidean_dist", "_cdist_forward"}
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
    "split_with_sizes", "t", "movedim", "roll", "mT", "expand_as", "view_as", "reshape_as",
    "broadcast_to", "swapaxes", "swapdims", "narrow", "repeat",
    # dtype and dropout
    "to", "_to_copy", "dropout", "native_dropout", "type_as", "getitem", "alias", "detach",
}  # fmt: skip
CHOICES = {"cat", "concat", "stack", "topk", "sort", "gather"}
"""Operators that join scores, or choose among them."""
NORMS = {"layer_norm", "group_norm", "batch_norm", "instance_norm", "rms_norm"}
WEIGHING = THROUGH | CHOICES | SOFTMAXES | SUMS | NORMS | {
    # of each score
    "exp", "exp2", "expm1", "log", "log1p", "log2", "relu", "relu6", "leaky_relu", "prelu", "elu",
    "celu", "selu", "gelu", "silu", "mish", "softplus", "sigmoid", "log_sigmoid", "hardsigmoid",
    "hardswish", "hardtanh", "tanh", "square", "pow", "sqrt", "rsqrt", "abs", "sign", "reciprocal",
    "clamp_max", "maximum", "minimum", "sin", "cos", "threshold", "hardshrink", "softshrink",
    # of each row
    "amax", "max", "amin", "min", "norm", "linalg_vector_norm", "logsumexp", "log_softmax",
    "cumsum", "scatter", "argsort", "masked_scatter",
}  # fmt: skip
"""Operators that softmaxes, and what people have in their place, are made of."""
TRANSFORMS = {"fft_rfft", "fft_rfft2", "fft_rfftn", "fft_fft", "fft_fft2", "fft_fftn"}
INVERSE_TRANSFORMS = {
    "fft_irfft", "fft_irfft2", "fft_irfftn", "fft_ifft", "fft_ifft2", "fft_ifftn",
}  # fmt: skip


def is_product(node: Node, live: set[Node]) -> bool:
    operands = [each for each in node.all_input_nodes if each in live]
    return operator(node) in PRODUCTS and len(operands) >= 2


def is_similarity(node: Node, live: set[Node]) -> bool:
    """Whether a node compares two activations.

    It is a product, a sum over products of their elements, or the distance of each two rows.
    """
    source = node.args[0] if operator(node) in SUMS else None
    if isinstance(source, Node) and operator(source) == "mul":
        return len([each for each in source.all_input_nodes if each in live]) == 2
    distance = operator(node) in DISTANCES and all(each in live for each in node.all_input_nodes)
    return distance or is_product(node, live)


def keeps(node: Node) -> bool:
    return operator(node) in THROUGH


def weighs(node: Node) -> bool:
    return operator(node) in WEIGHING


def before(
    nodes: Iterable[Node],
    live: set[Node],
    wanted: Callable[[Node], bool],
    through: Callable[[Node], bool] = keeps,
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


def after(
    node: Node, wanted: Callable[[Node], bool], through: Callable[[Node], bool]
) -> Node | None:
    """Walk on from a node to the first wanted."""
    return _first(node.users, wanted, through, lambda each: each.users)
