"""An ONNX file to a `Network`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from distillc.data.metrics import TOLERANCE, largest_error
from distillc.errors import LoweringError, TraceError
from distillc.frontend.changes import tell
from distillc.frontend.finite import check_weights
from distillc.frontend.formats import require_file
from distillc.frontend.onnx_graph import layers
from distillc.frontend.onnx_graph.module import OnnxModule
from distillc.frontend.onnx_graph.read import Graph, clean_model, graph_of, open_model
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.sizes import returns_image
from distillc.frontend.trace import trace
from distillc.network import Network
from distillc.sandbox import ProcessLimits, outcome

FREE_EDGES = (
    64,
    128,
    256,
    512,
    *(edge for edge in range(16, 257, 4) if edge not in (64, 128, 256)),
)
"""Tried for free axes: what the exporter took for granted can leave one size, any."""


def onnx_limits(path: Path) -> ProcessLimits:
    """Return what reading may take: a few runs of the network at small sizes."""
    size = path.stat().st_size + sum(
        each.stat().st_size for each in path.parent.glob(f"{path.name}*") if each != path
    )
    # Of a file in half precision, float32 copies.
    return ProcessLimits(8 + size / 2e5, 3 * 2**30 + 12 * size)


def load_onnx(
    path: Path,
    sandbox: bool = True,
    constants: Mapping[str, Any] | None = None,
    *,
    output: str | int | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Network, str]:
    """Return the network in an ONNX file, checked against ONNX Runtime, and what it is.

    Scale and sizes are found by running the file in ONNX Runtime. What had to be changed (see
    `open_model`) is logged.

    Args:
        path: The file.
        output: Name or index of the image in what it returns, where that is several.
        size: (H, W) to try, where both are free.
        sandbox: Read and run it in a process of its own; this one gets the cleaned graph.
        constants: Name -> constant of every further input, from `read_inputs`.

    Raises:
        CheckpointError: The file is damaged or hostile, its weights are not finite, or it is no
            map from one float32 image to one.
        UsageError: It has no input of a name, or one of another shape.
        LoweringError: Operators are not supported, all are listed; or the numbers differ.
        TraceError: The network runs at no size that was tried, or returns no image.
    """
    require_file(path)
    function = "distillc.frontend.onnx_graph.load:measure_graph"
    limits = onnx_limits(path) if sandbox else None
    given = {name: _as_json(value) for name, value in (constants or {}).items()}
    with outcome(function, path, given, output, size, limits=limits) as (facts, made):
        graph = graph_of(onnx.load(made), path)
    tell(path, facts.pop("changes"))
    architecture = f"ONNX graph, opset {graph.opsets.get('', 0)}"
    if graph.producer:
        architecture += f", from {graph.producer}"
    return Network(OnnxModule(graph), tuple(facts.pop("size")), **facts), architecture


def reference(
    path: Path, output: str | int | None = None, constants: Mapping[str, Any] | None = None
) -> OnnxRuntime:
    """Return what an ONNX file computes, in ONNX Runtime; arguments and errors as `open_model`."""
    return _runtime(path, *open_model(path, output, constants), constants)


def _runtime(
    path: Path,
    model: onnx.ModelProto,
    changes: Sequence[str],
    constants: Mapping[str, Any] | None,
) -> OnnxRuntime:
    if changes:  # the constants are inside
        return OnnxRuntime(path, content=model.SerializeToString())
    return OnnxRuntime(path, constants)


def measure_graph(
    path: str,
    given: Mapping[str, Any],
    output: str | int | None,
    size: Sequence[int] | None,
    out: str,
) -> dict[str, Any]:
    """Write the cleaned model of an ONNX file, and return the facts of its network.

    Args:
        path: The file.
        given: Constants of further inputs, JSON values; tensors as `_as_json` writes them.
        output: As of `load_onnx`.
        size: As of `load_onnx`.
        out: Where the model goes.

    Raises:
        DistillcError: As `load_onnx` does.
    """
    place = Path(path)
    constants = {name: _from_json(value) for name, value in given.items()}
    model, changes = open_model(place, output, constants)
    runtime = _runtime(place, model, changes, constants)
    model = clean_model(model, place)
    graph = graph_of(model, place)
    _check_constants(graph, place)
    module = OnnxModule(graph)
    net = _sizes(runtime, graph.shape, size)
    image = torch.rand(net.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = largest_error(module(image), net.module(image))
    if not error <= TOLERANCE:
        raise LoweringError(
            f"the network in torch differs from ONNX Runtime by {error:.2e}",
            where=path,
            hint="report the network",
        )
    Path(out).write_bytes(model.SerializeToString())
    names = ("size", "in_channels", "out_channels", "scale", "multiple", "square", "fixed_size")
    return {"changes": changes, **{name: getattr(net, name) for name in names}}


def _check_constants(graph: Graph, path: Path) -> None:
    """Refuse weights that are not finite; a constant of `Add` or `Where` may be a mask."""
    layer = {
        name for node in graph.nodes if node.op_type in layers.OPERATORS for name in node.input
    }
    weights: list[tuple[str, torch.Tensor]] = []
    constants: list[tuple[str, torch.Tensor]] = []
    for name, value in graph.constants.items():
        if np.issubdtype(value.dtype, np.floating):
            (weights if name in layer else constants).append((name, torch.from_numpy(value)))
    check_weights(weights, constants, str(path))


def _sizes(
    runtime: OnnxRuntime, shape: tuple[int | None, ...], wanted: Sequence[int] | None
) -> Network:
    """Trace a file at a size that it takes: the exporter may have fixed what the file calls free.

    Raises:
        TraceError: It takes none that is tried, or returns no image.
    """
    first, *others = FREE_EDGES
    sizes = [(first, first), *([(wanted[0], wanted[1])] if wanted else [])]
    sizes += [(edge, edge) for edge in others]
    examples = [
        torch.zeros(1, shape[1] or 3, shape[2] or height, shape[3] or width)
        for height, width in sizes
    ]
    if None not in shape:
        return trace(runtime, examples[0])
    for example in examples:
        if returns_image(runtime, example):
            return trace(runtime, example)
    try:
        return trace(runtime, examples[0])
    except TraceError as error:
        raise TraceError(
            f"{error.what}; other sizes were tried too",
            hint="give the size that the file was exported at with --size, or export it again "
            "with torch.onnx.export(model, image, path)",
        ) from error


def _as_json(value: Any) -> Any:
    """Return a constant for the other process."""
    if not isinstance(value, Tensor):
        return value
    numbers = base64.b64encode(value.numpy().tobytes()).decode()
    return {"dtype": str(value.numpy().dtype), "shape": list(value.shape), "numbers": numbers}


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    numbers = np.frombuffer(base64.b64decode(value["numbers"]), value["dtype"])
    return torch.from_numpy(numbers.reshape(value["shape"]).copy())
