"""Bodies for the scans of an ONNX graph, as local functions."""

from __future__ import annotations

import logging

import onnx
from onnx import parser

from distillc.codegen.build.onnx_axial_scan import axial_scan_body
from distillc.codegen.build.onnx_linear_attention import CONTRIB, runs_here
from distillc.codegen.build.onnx_selective_scan import selective_scan_body
from distillc.codegen.operators.placeholders import DOMAIN, OPERANDS
from distillc.errors import UsageError

log = logging.getLogger(__name__)

OPSET = 18
SCANS = ("fused", "standard")
"""How scans leave: as ONNX Runtime's own operator, or as loops that other runtimes know too."""
_BODIES = {"AxialScan": axial_scan_body, "SelectiveScan": selective_scan_body}


def check_scans(scans: str) -> str:
    """Return one of `SCANS`.

    Raises:
        UsageError: It is not one of them.
    """
    if scans not in SCANS:
        raise UsageError(f"unknown ONNX scans {scans!r}", hint=f"known: {', '.join(SCANS)}")
    return scans


def define_scans(model: onnx.ModelProto, fused: bool) -> onnx.ModelProto:
    """Add a local function for every distinct scan, and call it.

    `fused` is as in `axial_scan_body`.
    """
    names = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    if fused and names and not runs_here():
        log.warning("this ONNX Runtime has no LinearAttention: scans leave as loops")
        fused = False
    domains = {"": OPSET, CONTRIB: 1} if fused else {"": OPSET}
    if fused and names:
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    imports = ", ".join(f'"{domain}" : {version}' for domain, version in domains.items())
    for name in names:
        kind, *words = name.split("_")
        body = _BODIES[kind](*map(int, words), fused=fused)
        text = (
            f'<opset_import: [{imports}], domain: "{DOMAIN}">\n'
            f"{name} ({', '.join(OPERANDS)}) => (y) {{\n{body}}}"
        )
        model.functions.append(parser.parse_function(text))
    return model
