"""What an ONNX file may hold: sizes, counts, and where its data may be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from distillc.errors import CheckpointError

LARGEST_VALUE = 2**31
"""Bytes of one tensor, of one model, and of a file of external data: protobuf ends there."""

MOST_NODES = 100_000
"""Nodes with all functions written out; the largest networks have about ten thousand."""

LONGEST_NAME = 1000
"""Letters of a name."""

LOOPS = ("Loop", "Scan", "SequenceMap")


def check_bounds(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what would grow, or read elsewhere, before anything is made of a model.

    1. Functions, written out, make no more nodes than a network has; none calls itself.
    2. No tensor has a negative extent or is larger than a file can be, and its data, where it is
       in the file, has its size.
    3. External data is a file in the model's folder or below, without links on the way, and all of
       a tensor's data is in it.
    4. Names are short.

    Raises:
        CheckpointError: Naming the tensor or the function.
    """
    nodes = _written_out(model)
    if nodes > MOST_NODES:  # rule 1
        raise _refused(f"its functions make {nodes:.3g} nodes", path)
    for tensor in all_tensors(model):
        name = tensor.name or "a constant"
        if len(name) > LONGEST_NAME:  # rule 4
            raise _refused(f"a name has {len(name)} letters", path)
        size = math.prod(tensor.dims) * _item_bits(tensor) // 8
        if min(tensor.dims, default=0) < 0 or size > LARGEST_VALUE:  # rule 2
            raise _refused(f"{name} has the shape {tuple(tensor.dims)}", path)
        if tensor.data_location == TensorProto.EXTERNAL:
            _check_external(tensor, size, path)
        elif tensor.HasField("raw_data") and abs(len(tensor.raw_data) - size) > 1:  # 4 bits round
            raise _refused(f"{name} has {len(tensor.raw_data)} bytes for {size}", path)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        extents = [each.dim_value for each in value.type.tensor_type.shape.dim]
        if any(each < 0 or each > LARGEST_VALUE for each in extents):
            raise _refused(f"{value.name} has the shape {tuple(extents)}", path)


def has_loops(graph: onnx.GraphProto) -> bool:
    """Whether a graph, or one inside, holds an operator that repeats a graph."""
    return any(node.op_type in LOOPS for node in all_nodes(graph.node))


def _written_out(model: onnx.ModelProto) -> int:
    """Return how many nodes a model has with its functions written out (rule 1)."""
    functions = {(each.domain, each.name): each for each in model.functions}
    counts: dict[tuple[str, str], int] = {}
    open_: set[tuple[str, str]] = set()

    def count(nodes: Iterator[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key not in functions:
                total += 1
                continue
            if key not in counts:
                if key in open_ or len(open_) > 100:
                    return MOST_NODES + 1
                open_.add(key)
                counts[key] = count(all_nodes(functions[key].node))
                open_.discard(key)
            total += counts[key]
        return total

    return count(all_nodes(model.graph.node))


def all_nodes(nodes: object) -> Iterator[onnx.NodeProto]:
    """Yield nodes, and those of the graphs inside."""
    for node in nodes:  # type: ignore[attr-defined]
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from all_nodes(graph.node)


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor of a model."""
    yield from _held(model.graph)
    for function in model.functions:
        yield from _attributes(function.node)


def _held(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _attributes(graph.node)


def _attributes(nodes: object) -> Iterator[TensorProto]:
    for node in nodes:  # type: ignore[attr-defined]
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from _held(graph)


def _item_bits(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return 8
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return 8
    name = TensorProto.DataType.Name(tensor.data_type)
    return 4 if name.endswith(("INT4", "E2M1")) else 8 * dtype.itemsize


def _check_external(tensor: TensorProto, size: int, path: Path) -> None:
    """Apply rule 3."""
    entries = {each.key: each.value for each in tensor.external_data}
    place = Path(entries.get("location", ""))
    root = path.parent
    steps = [root / Path(*place.parts[: i + 1]) for i in range(len(place.parts))]
    if not place.parts or place.is_absolute() or ".." in place.parts or "\\" in str(place):
        raise _refused(f"{tensor.name} is outside the model's folder: {place}", path)
    for step in steps:
        if step.is_symlink():
            raise _refused(f"{tensor.name} is behind a symbolic link: {step}", path)
    if not steps[-1].is_file():
        raise CheckpointError(
            f"the external data of {tensor.name} is missing: {place}",
            where=str(path),
            hint="copy the files of external data beside the model",
        )
    facts = steps[-1].stat()
    if facts.st_nlink > 1:
        raise _refused(f"{tensor.name} is behind a hard link: {steps[-1]}", path)
    try:
        offset, length = (
            int(entries.get(key) or other) for key, other in (("offset", 0), ("length", size))
        )
    except ValueError:
        offset = -1
    if offset < 0 or length != size or offset + length > facts.st_size:
        raise _refused(
            f"{tensor.name} takes {size} bytes from {entries.get('offset', 0)} of {place}, which "
            f"has {facts.st_size}",
            path,
        )


def _refused(what: str, path: Path) -> CheckpointError:
    return CheckpointError(
        f"the ONNX file is damaged or hostile: {what}",
        where=str(path),
        hint="export it again with torch.onnx.export(model, image, path)",
    )
