"""Nodes that depend only on sizes, computed by ONNX's own reference implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from distillc.frontend.onnx_graph.operator import Known, failure


def compute_known(
    node: onnx.NodeProto, inputs: Sequence[Any], opsets: Mapping[str, int]
) -> list[Known]:
    """Return a node's outputs, in numpy: a graph that is being traced does not record it.

    Raises:
        LoweringError: The node cannot be computed.
    """
    given = {name: value for name, value in zip(node.input, inputs, strict=True) if name}
    function = helper.make_function(
        "distillc",
        "known",
        list(given),
        list(node.output),
        [node],
        [helper.make_opsetid(domain, version) for domain, version in opsets.items()],
    )
    try:
        return list(ReferenceEvaluator(function).run(None, given, attributes={}))
    except Exception as error:
        raise failure(node, error) from error
