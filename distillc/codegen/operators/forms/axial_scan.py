"""The axial scan: our kernel, and a placeholder in ONNX that its export gives a body."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from tvm import relax

from distillc.codegen.kernels.axial_scan import Sizes, axial_scan_kernel
from distillc.codegen.operators.lowering import Lowering
from distillc.codegen.operators.placeholders import placeholder
from distillc.surrogates.axial_scan import direction_codes

_OPERANDS = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def _convert(context: Lowering, node: fx.Node, importer: Any) -> relax.Var:
    """Lower `distillc::axial_scan` to our kernel."""
    given: dict[str, Any] = dict(zip((*_OPERANDS, "directions"), node.args, strict=False))
    given |= node.kwargs
    operands = [importer.env[given[name]] for name in _OPERANDS]

    def shape(index: int) -> tuple[int, ...]:
        return tuple(int(extent) for extent in operands[index].ty.shape)

    (batch, channels, height, width), (heads,) = shape(0), shape(2)
    _, groups, states, *_ = shape(3)
    codes = direction_codes(given["directions"])
    sizes = Sizes(batch, channels, height, width, heads, groups, states, codes)
    kernel = axial_scan_kernel(sizes, context.target)
    function = importer.block_builder.add_func(kernel, "axial_scan")
    result = relax.TensorType(shape(0), "float32")
    return importer.block_builder.emit(relax.call_tir(function, operands, result))


def _translate(
    u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, delta_bias: Any, directions: str
) -> Any:
    """Emit a placeholder for the scan, that `define_scans` gives a body."""
    sizes = (*map(int, u.shape), int(A.shape[0]), int(B.shape[1]), int(B.shape[2]))
    emit = placeholder("AxialScan", (*sizes, *direction_codes(directions)))
    return emit(u, delta, A, B, C, D, delta_bias)


_SCAN = torch.ops.distillc.axial_scan.default
CONVERSIONS = {_SCAN: _convert}
TRANSLATIONS = {_SCAN: _translate}
