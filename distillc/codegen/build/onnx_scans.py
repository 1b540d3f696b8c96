"""Bodies for the scans of an ONNX graph: local functions of standard operators."""

from __future__ import annotations

import onnx
from onnx import parser

from distillc.codegen.build.onnx_axial_scan import axial_scan_body
from distillc.codegen.build.onnx_selective_scan import selective_scan_body
from distillc.codegen.operators.placeholders import DOMAIN, OPERANDS

OPSET = 18
_BODIES = {"AxialScan": axial_scan_body, "SelectiveScan": selective_scan_body}


def define_scans(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a local function for every distinct scan, and call it."""
    for name in sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN}):
        kind, *words = name.split("_")
        body = _BODIES[kind](*map(int, words))
        text = (
            f'<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">\n'
            f"{name} ({', '.join(OPERANDS)}) => (y) {{\n{body}}}"
        )
        model.functions.append(parser.parse_function(text))
    return model
