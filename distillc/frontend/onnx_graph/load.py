"""An ONNX file to a `Network`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from distillc.data.metrics import TOLERANCE, largest_error
from distillc.errors import LoweringError, TraceError
from distillc.frontend.finite import check_weights
from distillc.frontend.onnx_graph import layers
from distillc.frontend.onnx_graph.module import OnnxModule
from distillc.frontend.onnx_graph.read import Graph, read_graph
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.trace import trace
from distillc.network import Network

EDGES = (64, 128, 256, 512)
"""Tried for free axes: what the exporter took for granted can rule out some."""


def load_onnx(path: Path) -> tuple[Network, str]:
    """Return the network in an ONNX file, checked against ONNX Runtime, and what it is.

    Scale and size multiple are found by running the file in ONNX Runtime.

    Raises:
        CheckpointError: The file is damaged, its weights are not finite, or it is no map from one
            float32 image to one.
        LoweringError: Operators are not supported, all are listed; or the numbers differ.
        TraceError: The network runs at no size that was tried, or returns no image.
    """
    graph = read_graph(path)
    _check_constants(graph, path)
    module = OnnxModule(graph)
    net = _sizes(OnnxRuntime(path), graph.shape)
    image = torch.rand(net.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = largest_error(module(image), net.module(image))
    if not error <= TOLERANCE:
        raise LoweringError(
            f"the network in torch differs from ONNX Runtime by {error:.2e}",
            where=str(path),
            hint="report the network",
        )
    architecture = f"ONNX graph, opset {graph.opsets.get('', 0)}"
    if graph.producer:
        architecture += f", from {graph.producer}"
    return replace(net, module=module), architecture


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


def _sizes(runtime: OnnxRuntime, shape: tuple[int | None, ...]) -> Network:
    for edge in EDGES:
        example = torch.zeros([each or edge for each in shape])
        try:
            return trace(runtime, example)
        except TraceError:
            if edge == EDGES[-1] or None not in shape:
                raise
    raise AssertionError("unreachable")
