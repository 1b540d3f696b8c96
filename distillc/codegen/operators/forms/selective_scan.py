"""The selective scan: our kernel, and a placeholder in ONNX that its export gives a body."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18 as op
from torch import fx
from tvm import relax

import distillc.surrogates.selective_scan  # noqa: F401 - registers the operator
from distillc.codegen.kernels.selective_scan import Rates, selective_scan_kernel
from distillc.codegen.operators.lowering import Lowering
from distillc.codegen.operators.placeholders import placeholder


def _convert(context: Lowering, node: fx.Node, importer: Any) -> relax.Var:
    """Lower `distillc::selective_scan` to our kernel; a gate is applied after it."""
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "delta_softplus", "reverse")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    tensors = {
        name: importer.env[value] for name, value in given.items() if isinstance(value, fx.Node)
    }
    emit = importer.block_builder.emit

    def shape(name: str) -> tuple[int, ...]:
        return tuple(int(extent) for extent in tensors[name].ty.shape)

    batch, channels, length = shape("u")
    states = shape("A")[1]
    for name in ("B", "C"):
        if len(shape(name)) == 3:
            tensors[name] = emit(relax.op.expand_dims(tensors[name], 1))
    zeros = relax.op.zeros((channels,), "float32")
    options = (bool(given.get("delta_softplus", False)), bool(given.get("reverse", False)))
    arguments = (batch, channels, length, states, shape("B")[1], *options)
    known = context.constants().get(given["A"])
    rates = Rates.OWN if known is None else Rates.of(known.detach().numpy())
    kernel = selective_scan_kernel(*arguments, context.target, rates)
    operands = [tensors[name] for name in ("u", "delta", "A", "B", "C")]
    operands += [tensors.get(name, emit(zeros)) for name in ("D", "delta_bias")]
    function = importer.block_builder.add_func(kernel, "selective_scan")
    result = relax.TensorType((batch, channels, length), "float32")
    y = emit(relax.call_tir(function, operands, result))
    if "z" in tensors:
        y = emit(relax.op.multiply(y, relax.op.nn.silu(tensors["z"])))
    return y


def _translate(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any = None,
    z: Any = None,
    delta_bias: Any = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Any:
    """Emit a placeholder for the scan, that `define_scans` gives a body."""
    zeros = op.Constant(value_floats=[0.0] * int(u.shape[1]))
    skip = zeros if D is None else D
    bias = zeros if delta_bias is None else delta_bias
    groups = int(B.shape[1]) if len(B.shape) == 4 else 1
    sizes = (*map(int, u.shape), int(A.shape[1]), groups, int(delta_softplus), int(reverse))
    y = placeholder("SelectiveScan", sizes)(u, delta, A, B, C, skip, bias)
    return y if z is None else op.Mul(y, op.Mul(z, op.Sigmoid(z)))


_SCAN = torch.ops.distillc.selective_scan.default
CONVERSIONS = {_SCAN: _convert}
TRANSLATIONS = {_SCAN: _translate}
