"""Which axes of an activation count channels and which count positions, followed through a graph.

Extents cannot tell: a head of 48 channels beside a 6x8 image looks the same either way.
"""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from distillc.frontend.attention_walks import FUSED, PRODUCTS
from distillc.frontend.graph import operands, operator, shape

Factors = tuple[tuple[int, bool], ...]
"""What an axis is made of, outermost first: extents, and whether each counts channels."""

Axes = tuple[Factors, ...]

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "conv_transpose2d"}
RESHAPES = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
    "reshape_as",
}  # fmt: skip
TRANSPOSED = {"t", "mT", "mH", "adjoint", "matrix_H"}
UNKNOWN = {"movedim", "unfold", "im2col", "as_strided"}


def follow_axes(program: torch.export.ExportedProgram) -> dict[Node, Axes]:
    """Return the axes of every activation whose layout is known, images being (B, C, ...)."""
    inputs = set(program.graph_signature.user_inputs)
    known: dict[Node, Axes] = {}
    for node in program.graph.nodes:
        axes = None
        if node.op == "placeholder" and node.name in inputs:
            axes = _image(shape(node))
        elif node.op == "call_function":
            axes = _result(node, known)
        if axes is not None:
            known[node] = axes
    return known


def counts_channels(factors: Factors) -> bool:
    """Whether an axis counts channels rather than positions."""
    channels = math.prod(extent for extent, channel in factors if channel)
    return channels > math.prod(extent for extent, channel in factors if not channel)


def channel_axis(axes: Axes) -> int | None:
    """Return the axis that counts channels, None when none does."""
    found = [index for index, factors in enumerate(axes) if counts_channels(factors)]
    return found[-1] if found else None


def _image(extents: tuple[int, ...]) -> Axes:
    return tuple(((extent, index == 1),) for index, extent in enumerate(extents))


def _result(node: Node, known: dict[Node, Axes]) -> Axes | None:
    """Return the axes of an operator's result; those of each result where it has several."""
    name, extents = operator(node), shape(node)
    if name in CONVOLUTIONS:
        return _image(extents)
    sources = [each for each in node.all_input_nodes if each in known]
    unsized = not extents and isinstance(node.meta.get("val"), torch.Tensor)
    if not sources or name in UNKNOWN or unsized:
        return None
    axes = known[max(sources, key=lambda each: math.prod(shape(each)))]  # the rest is broadcast
    if name in {"permute", "transpose", "swapaxes", *TRANSPOSED}:
        return tuple(axes[index] for index in _order(node, name, len(axes)))
    if name == "einsum":
        return _einsum(node, known)
    if name in FUSED:
        query, value = known.get(node.args[0]), known.get(node.args[2])  # type: ignore[arg-type]
        return (*query[:-1], value[-1]) if query and value else None
    if name in PRODUCTS:
        first, second = (known.get(each) for each in operands(node))
        if first and second:
            return (*first[:-1], second[-1])
    if name in {"linear", "addmm", *PRODUCTS}:  # with a weight: the last axis holds new channels
        return (*axes[:-1], ((extents[-1], True),)) if len(axes) == len(extents) else None
    if name in RESHAPES:
        return _regroup(axes, extents)
    if name in {"select", "unbind"}:
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        assert isinstance(dim, int)
        return tuple(each for index, each in enumerate(axes) if index != dim % len(axes))
    if not extents:  # several results, picked by getitem
        return axes
    return _resized(axes, extents)


def _order(node: Node, name: str, rank: int) -> list[int]:
    order = list(range(rank))
    if name == "permute":
        return [int(index) % rank for index in node.args[1]]  # type: ignore[union-attr, arg-type]
    first, second = (int(each) for each in node.args[1:3]) if name not in TRANSPOSED else (-2, -1)  # type: ignore[arg-type]
    order[first], order[second] = order[second], order[first]
    return order


def _einsum(node: Node, known: dict[Node, Axes]) -> Axes | None:
    inputs, _, output = str(node.args[0]).replace(" ", "").partition("->")
    axes: dict[str, Factors] = {}
    for labels, operand in zip(inputs.split(","), node.args[1], strict=True):  # type: ignore[arg-type]
        if operand in known:
            axes |= dict(zip(labels, known[operand], strict=False))
    if "." in inputs or not all(label in axes for label in output):
        return None
    return tuple(axes[label] for label in output)


def _regroup(axes: Axes, extents: tuple[int, ...]) -> Axes | None:
    """Split and merge axes the way a row-major reshape does; None where they do not divide."""
    flat = [factor for factors in axes for factor in factors if factor[0] > 1]
    groups = []
    for extent in extents:
        group = []
        while extent > 1:
            if not flat:
                return None
            size, channel = flat.pop(0)
            if size % extent == 0 and size > extent:
                flat.insert(0, (size // extent, channel))
                size = extent
            if extent % size:
                return None
            group.append((size, channel))
            extent //= size
        groups.append(tuple(group))
    return tuple(groups)


def _resized(axes: Axes, extents: tuple[int, ...]) -> Axes | None:
    """Keep the meaning of each axis where only extents change (slice, pad, pool, concatenate)."""
    if len(axes) != len(extents):
        return None
    return tuple(
        factors
        if math.prod(size for size, _ in factors) == extent
        else ((extent, counts_channels(factors)),)
        for factors, extent in zip(axes, extents, strict=True)
    )
