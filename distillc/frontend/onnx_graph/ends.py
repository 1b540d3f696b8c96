"""The ends of an ONNX graph: which output is the image, and which of its axes holds channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from distillc.errors import CheckpointError, UsageError

MOST_CHANNELS = 6
"""Of an image: a last axis that is not longer, behind one that is, holds the channels."""

IMAGES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""Kinds of numbers that images have."""

Extents = list[int | None]


def image_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs without the weights, which old files list too."""
    weights = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in weights]


def _extents(value: onnx.ValueInfoProto) -> Extents:
    """Return the extents of a value's axes, None for a free one; nothing where no rank is known."""
    return [each.dim_value or None for each in value.type.tensor_type.shape.dim]


def _channels_last(extents: Sequence[int | None]) -> bool:
    """Whether the extents can only be (N, H, W, C)."""
    if len(extents) != 4:
        return False
    first, last = (each is not None and each <= MOST_CHANNELS for each in extents[1::2])
    return last and not first


def keep_output(graph: onnx.GraphProto, path: Path, wanted: str | int | None) -> list[str]:
    """Remove all outputs but one: the wanted, or the only one that can be the restored image.

    Args:
        graph: It is changed.
        path: For messages.
        wanted: Name or index of the output to keep.

    Returns:
        What was changed, in words.

    Raises:
        UsageError: The graph returns nothing of that name.
        CheckpointError: It returns several images, or none of several is one.
    """
    names = [each.name for each in graph.output]
    if wanted is not None:
        index = str(wanted)
        kept = index if index in names else None
        if kept is None and index.isdecimal() and int(index) < len(names):
            kept = names[int(index)]
        if kept is None:
            raise UsageError(
                f"the ONNX graph returns no {index!r}, but {', '.join(names)}",
                where="--output",
                hint="give a name or an index of these, or leave --output out",
            )
    elif len(names) < 2:
        return []
    else:
        images = _images(graph)
        if len(images) != 1:
            raise CheckpointError(
                f"the ONNX graph must take one image and return one; it returns: "
                f"{', '.join(map(_described, graph.output))}",
                where=str(path),
                hint=f"say which one it is: --output {(images or names)[0]}",
            )
        kept = images[0]
    for place in reversed(range(len(names))):
        if names[place] != kept:
            del graph.output[place]
    return [f"returns {', '.join(names)}: {kept} is taken"] if len(names) > 1 else []


def _images(graph: onnx.GraphProto) -> list[str]:
    """Return the outputs that can be the restored image, those of the input's channels first."""
    given = [_extents(each) for each in image_inputs(graph)[:1]]
    shape = _first_channels(given[0]) if given else []
    fitting = {
        each.name: found
        for each in graph.output
        if each.type.tensor_type.elem_type in IMAGES
        and _is_scaled(shape, found := _first_channels(_extents(each)))
    }
    alike = [name for name, found in fitting.items() if found[1] == shape[1]]
    return alike or list(fitting)


def _first_channels(extents: Extents) -> Extents:
    return [extents[each] for each in (0, 3, 1, 2)] if _channels_last(extents) else extents


def _is_scaled(given: Extents, found: Extents) -> bool:
    """Whether extents can be an image's, larger than the given by a whole number."""
    if len(given) != 4 or len(found) != 4:
        return False
    pairs = list(zip(given[2:], found[2:], strict=True))
    scales = {(new // old, new % old) for old, new in pairs if old and new}
    return len(scales) <= 1 and all(scale and not rest for scale, rest in scales)


def _described(value: onnx.ValueInfoProto) -> str:
    axes = value.type.tensor_type.shape.dim
    return f"{value.name} ({', '.join(str(d.dim_value or d.dim_param or '?') for d in axes)})"


def turn_channels(graph: onnx.GraphProto) -> list[str]:
    """Put transposes at the ends whose channels are last: both are (N, C, H, W) then.

    Where nothing is known of the output's axes it has the input's order.

    Args:
        graph: Of one input and one output; it is changed.

    Returns:
        What was changed, in words.
    """
    inputs = image_inputs(graph)
    if len(inputs) != 1 or len(graph.output) != 1:
        return []
    given, result = inputs[0], graph.output[0]
    last_in, extents = _channels_last(_extents(given)), _extents(result)
    unknown = len(extents) != 4 or not (extents[1] or extents[3])
    last_out = last_in
    if not unknown:  # (1, 16, 3, 4) of (1, 4, 6, 8) has many channels, and no rows of 16
        shape = _first_channels(_extents(given))
        last_out = _channels_last(extents) and _is_scaled(shape, _first_channels(extents))
    turned = []
    if last_in:
        inside = f"{given.name}_channels_last"
        for node in graph.node:
            _rename(node.input, given.name, inside)
        turn = helper.make_node("Transpose", [given.name], [inside], perm=[0, 2, 3, 1])
        graph.node.insert(0, turn)
        _reorder(given, (0, 3, 1, 2))
        turned.append("input")
    if last_out:
        inside = f"{result.name}_channels_last"
        for node in graph.node:
            _rename(node.input, result.name, inside)
            _rename(node.output, result.name, inside)
        turn = helper.make_node("Transpose", [inside], [result.name], perm=[0, 3, 1, 2])
        graph.node.append(turn)
        _reorder(result, (0, 3, 1, 2))
        turned.append("output")
    if not turned:
        return []
    return [f"channels are last (NHWC) in its {' and '.join(turned)}: turned to NCHW"]


def _rename(names: Any, old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new


def _reorder(value: onnx.ValueInfoProto, order: Sequence[int]) -> None:
    shape = value.type.tensor_type.shape
    if len(shape.dim) == len(order):
        axes = onnx.TensorShapeProto.FromString(shape.SerializeToString()).dim
        del shape.dim[:]
        shape.dim.extend(axes[each] for each in order)


def fix_channels(graph: onnx.GraphProto) -> None:
    """Fix free channels of the input to those of the first convolution; running it tries them."""
    inputs = image_inputs(graph)
    weights = {each.name: each.dims for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights and len(inputs) == 1:
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            axes = inputs[0].type.tensor_type.shape.dim
            if len(axes) == 4 and not axes[1].dim_value:
                axes[1].dim_value = weights[node.input[1]][1] * groups
            return
