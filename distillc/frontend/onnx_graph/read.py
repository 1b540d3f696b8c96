"""An ONNX file to a clean graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
from onnx import inliner, numpy_helper, version_converter
from onnx.external_data_helper import load_external_data_for_model
from onnx_graphsurgeon.logger import G_LOGGER

from distillc.errors import CheckpointError, reason
from distillc.frontend.formats import require_file
from distillc.frontend.onnx_graph.bounds import check_bounds, has_loops
from distillc.frontend.onnx_graph.ends import (
    fix_channels,
    image_inputs,
    keep_output,
    turn_channels,
)
from distillc.frontend.onnx_graph.inputs import fix
from distillc.frontend.onnx_graph.numbers import make_float32
from distillc.frontend.onnx_graph.operator import Known

OPSET = 13
"""Older graphs are converted to this version of ONNX's operators: axes became inputs there."""

HINT = "export it with torch.onnx.export(model, image, path) at opset 13 or later"


@dataclass(frozen=True)
class Graph:
    """A graph from one image to one image.

    Attributes:
        nodes: In an order in which they can be computed.
        constants: Weights and other constants by name.
        image: Name of the input.
        shape: (1, C, H, W) of the input; None for an axis whose extent is free.
        output: Name of the output.
        opsets: Versions of the operators by domain, `""` for ONNX's own.
        producer: What wrote the file.
    """

    nodes: tuple[onnx.NodeProto, ...]
    constants: dict[str, Known]
    image: str
    shape: tuple[int | None, ...]
    output: str
    opsets: dict[str, int]
    producer: str


def open_model(
    path: Path, output: str | int | None = None, constants: Mapping[str, Any] | None = None
) -> tuple[onnx.ModelProto, list[str]]:
    """Read an ONNX file as a graph from one float32 image (1, C, H, W) to one.

    1. Further inputs become constants.
    2. Of several outputs one is kept; see `keep_output`.
    3. Half and double precision become float32.
    4. Channels that are last are turned, in the input and in the output.
    5. Free channels of the input are those of the first convolution.

    Args:
        path: The file.
        output: Name or index of the image in what the graph returns.
        constants: Name -> constant of every further input, from `read_inputs`.

    Returns:
        The model with all its data inside, and what of its meaning was changed, in words.

    Raises:
        CheckpointError: The file is missing, damaged, hostile, no ONNX model, or no map from one
            image to one.
        UsageError: The graph returns nothing of the name `output`, has no input of a name of the
            constants, or one of another shape.
    """
    require_file(path)
    try:
        model = onnx.load(path, load_external_data=False)
        check_bounds(model, path)
        load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"this is not a whole ONNX model: {reason(error)}",
            where=str(path),
            hint="copy or download it again, with the files of external data beside it if there "
            "are any",
        ) from error
    if constants:
        fix(model, constants)  # rule 1
    changes = keep_output(model.graph, path, output)  # rule 2
    changes += make_float32(model)  # rule 3
    changes += turn_channels(model.graph)  # rule 4
    fix_channels(model.graph)  # rule 5
    image_shape(model, path)
    return model, changes


def clean_model(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Fold the constants of a model from `open_model`, and remove what its output does not need.

    Raises:
        CheckpointError: It cannot be done.
    """
    try:
        with _quiet():
            return _clean(model)
    except Exception as error:
        raise CheckpointError(
            f"the ONNX graph cannot be cleaned: {reason(error)}", where=str(path), hint=HINT
        ) from error


def read_graph(path: Path) -> Graph:
    """Return the clean graph of a file; see `open_model`."""
    return graph_of(clean_model(open_model(path)[0], path), path)


def graph_of(model: onnx.ModelProto, path: Path) -> Graph:
    """Return the graph of a model that `clean_model` returned for this file."""
    return Graph(
        tuple(model.graph.node),
        {each.name: np.array(numpy_helper.to_array(each)) for each in model.graph.initializer},
        model.graph.input[0].name,
        image_shape(model, path),
        model.graph.output[0].name,
        {each.domain: each.version for each in model.opset_import},
        f"{model.producer_name} {model.producer_version}".strip(),
    )


def _clean(model: onnx.ModelProto) -> onnx.ModelProto:
    versions = {each.domain: each.version for each in model.opset_import}
    if versions.get("", OPSET) < OPSET:
        model = version_converter.convert_version(model, OPSET)
    graph = gs.import_onnx(inliner.inline_local_functions(model))
    graph.cleanup().toposort()
    # GraphSurgeon's folding of shapes overlooks the `start` and `end` that Shape has since opset
    # 15; what follows from sizes is computed when a size is known.
    if not has_loops(model.graph):  # what can loop for ever is refused when it is known by name
        with G_LOGGER.suppress():
            graph.fold_constants(fold_shapes=False).cleanup()
    return gs.export_onnx(graph)


def image_shape(model: onnx.ModelProto, path: Path) -> tuple[int | None, ...]:
    """Return (1, C, H, W) of the only input, None where it is free."""
    inputs = image_inputs(model.graph)
    for what, found in (("takes", inputs), ("returns", list(model.graph.output))):
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise CheckpointError(
                f"the ONNX graph must take one image and return one; it {what}: {names}",
                where=str(path),
                hint="fix further inputs with --input NAME=VALUE or NAME=FILE; cut outputs with "
                "onnx.utils.extract_model, or wrap the model before export",
            )
        kind = found[0].type.tensor_type
        if kind.elem_type != onnx.TensorProto.FLOAT:
            name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
            raise CheckpointError(
                f"the ONNX graph {what} {name}, not float32", where=str(path), hint=_FLOAT
            )
    extents = inputs[0].type.tensor_type.shape.dim
    shape = tuple(each.dim_value or None for each in extents)
    if len(shape) != 4 or shape[0] not in (1, None) or shape[1] is None:
        written = ", ".join(str(each.dim_value or each.dim_param or "?") for each in extents)
        raise CheckpointError(
            f"the ONNX graph must take an image (1, C, H, W) with C fixed, not ({written})",
            where=str(path),
            hint=HINT,
        )
    return (1, *shape[1:])


_FLOAT = "export the network in float32; --precision fp16 makes it float16 when it is compiled"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what GraphSurgeon, and ONNX Runtime in it, say about constants they leave."""
    onnxruntime.set_default_logger_severity(4)
    try:
        with G_LOGGER.suppress(G_LOGGER.ERROR):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its default
