"""Scans in an ONNX graph until its export gives them a body."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnxscript

DOMAIN = "distillc"
OPERANDS = ("u", "delta", "A", "B", "C", "D", "bias")
"""The names of a scan's operands, all float32."""


def placeholder(kind: str, sizes: Sequence[int]) -> onnxscript.values.Op:
    """Return an operator of one float32 output whose name tells its kind and sizes.

    Args:
        kind: What gives it a body, see `distillc.codegen.build.onnx_scans`.
        sizes: What its body depends on.
    """
    name = "_".join([kind, *map(str, sizes)])
    parameter = onnx.defs.OpSchema.FormalParameter
    schema = onnx.defs.OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[parameter(each, "T") for each in OPERANDS],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
    )
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), name, schema)
