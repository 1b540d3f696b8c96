"""A hybrid to ONNX, for ONNX Runtime.

The selective scan becomes ONNX `Scan` nodes in the two-level form: positions are split into chunks,
all chunks take a step at once, and a short scan over the chunks carries their states. For L
positions that is about 3 sqrt(L) iterations instead of L.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import onnx_graphsurgeon as gs
import onnxscript
import torch
from onnx import inliner, parser
from onnx_graphsurgeon.logger import G_LOGGER
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript import opset18 as op
from onnxscript import optimizer
from torch.export import ExportedProgram

import distillc.surrogates.selective_scan  # noqa: F401 - registers the operator
from distillc.codegen.operators.prepare import decompose, prepare
from distillc.data.metrics import TOLERANCE, largest_error
from distillc.errors import LoweringError, StorageError, reason
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.trace import image_shapes
from distillc.quiet import quiet_libraries
from distillc.workdir import write_whole

OPSET = 18
PLACEHOLDER = "SelectiveScan_"
"""Prefix of the placeholder's name; sizes and flags follow."""
DOMAIN = "distillc"


def export_onnx(program: ExportedProgram, path: Path) -> None:
    """Export a program of `distillc.frontend.trace.export_program`, and check it against torch.

    What ONNX Runtime cannot take as it is (complex numbers, layers without channels) goes the way
    that the compiler's import goes.

    Raises:
        LoweringError: An operator has no ONNX form, or ONNX Runtime's output differs from torch's
            by more than 1e-4, of its largest value where that is above 1.
    """
    try:
        _export(program, path)
    except LoweringError:
        _export(prepare(decompose(program)), path)


def _export(program: ExportedProgram, path: Path) -> None:
    x = torch.rand(image_shapes(program)[0], generator=torch.Generator().manual_seed(0))
    try:
        model = _convert(program)
        write_whole(path, lambda temporary: onnx.save(model, str(temporary)))
        y = OnnxRuntime(path)(x)
    except StorageError:
        raise
    except Exception as error:
        root: BaseException = error  # the exporter's own message is its address, not the reason
        while root.__cause__:
            root = root.__cause__
        path.unlink(missing_ok=True)
        raise LoweringError(
            f"the network cannot be exported to ONNX: {reason(root, longest=300)}",
            hint="run with --debug for the exporter's own trace",
        ) from error
    with torch.no_grad():
        error_size = largest_error(y, program.module()(x))
    if not error_size <= TOLERANCE:
        path.unlink()
        raise LoweringError(f"the ONNX file differs from torch by {error_size:.2e}")


def _convert(program: ExportedProgram) -> onnx.ModelProto:
    with quiet_libraries(), G_LOGGER.suppress(), torch.no_grad():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["restored"],
            custom_translation_table={
                torch.ops.distillc.selective_scan.default: _translate,
                torch.ops.aten.sort.stable: _translate_sort,
            },
            verbose=False,
            optimize=False,
        )
        assert exported is not None
        # What the exporter itself would do, but for its rules: one drops sums with less than
        # 1e-8, which keep quotients finite.
        optimizer.inline(exported.model)
        optimizer.fold_constants(exported.model)
        # GraphSurgeon reads floats that are listed in a node as double.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(exported.model)
        model = inliner.inline_local_functions(_define_scans(exported.model_proto))
        graph = gs.import_onnx(model)
        graph.cleanup().toposort()
        graph.fold_constants().cleanup()
        tidy = gs.export_onnx(graph)
        onnx.checker.check_model(tidy, full_check=True)
    return tidy


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
    """Emit a placeholder for the scan, that `_define_scans` gives a body."""
    zeros = op.Constant(value_floats=[0.0] * int(u.shape[1]))
    skip = zeros if D is None else D
    bias = zeros if delta_bias is None else delta_bias
    groups = int(B.shape[1]) if len(B.shape) == 4 else 1
    sizes = (*map(int, u.shape), int(A.shape[1]), groups, int(delta_softplus), int(reverse))
    y = _placeholder(PLACEHOLDER + "_".join(map(str, sizes)))(u, delta, A, B, C, skip, bias)
    return y if z is None else op.Mul(y, op.Mul(z, op.Sigmoid(z)))


def _translate_sort(
    x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """Sort by TopK of all elements, of which equal ones keep their order."""
    count = op.Constant(value_ints=[int(x.shape[dim])])
    return op.TopK(x, count, axis=dim, largest=int(descending))


def _placeholder(name: str) -> onnxscript.values.Op:
    parameter = onnx.defs.OpSchema.FormalParameter
    schema = onnx.defs.OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[parameter(each, "T") for each in ("u", "delta", "A", "B", "C", "D", "bias")],
        outputs=[parameter("y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
    )
    return onnxscript.values.Op(onnxscript.values.Opset(DOMAIN, 1), name, schema)


def _define_scans(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a local function for every distinct scan, and call it."""
    for name in sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN}):
        b, d, length, n, g, softplus, reverse = map(int, name.removeprefix(PLACEHOLDER).split("_"))
        text = scan_function(name, b, d, length, n, g, bool(softplus), bool(reverse))
        model.functions.append(parser.parse_function(text))
    return model


def chunk_length(length: int) -> int:
    """Return the divisor of a length that makes 2 T + L / T smallest: the chunks' length T."""
    divisors = [each for each in range(1, math.isqrt(length) + 1) if length % each == 0]
    divisors += [length // each for each in divisors]
    return min(divisors, key=lambda steps: 2 * steps + length // steps)


def scan_function(
    name: str,
    batch: int,
    channels: int,
    length: int,
    states: int,
    groups: int,
    softplus: bool,
    reverse: bool,
) -> str:
    """Return an ONNX function (u, delta, A, B, C, D, bias) -> y in ONNX's text form.

    1. Each group is a sequence of its own: S = batch * groups, E = channels / groups.
    2. All K chunks take T steps from a zero state; their final states and total decays remain.
    3. A scan over the K chunks gives the state each begins with.
    4. The T steps again, from those states, with the output.
    """
    s, e, n = batch * groups, channels // groups, states
    t = chunk_length(length)
    k = length // t
    way = int(reverse)
    activate = "dt = Softplus(biased)" if softplus else "dt = Identity(biased)"
    return f"""
<opset_import: ["" : {OPSET}], domain: "distillc">
{name} (u, delta, A, B, C, D, bias) => (y) {{
  last = Constant <value_ints = [-1]> ()
  before_last = Constant <value_ints = [-2]> ()
  first = Constant <value_ints = [0]> ()
  second = Constant <value_ints = [1]> ()
  wide = Constant <value_ints = [{s}, {e}, {k}, {t}]> ()
  narrow = Constant <value_ints = [{s}, {n}, {k}, {t}]> ()
  whole = Constant <value_ints = [{batch}, {channels}, {length}]> ()
  group_shape = Constant <value_ints = [{groups}, {e}, {n}]> ()
  repeats = Constant <value_ints = [{batch}, 1, 1]> ()
  column = Constant <value_ints = [{channels}, 1]> ()

  bias_column = Reshape(bias, column)
  biased = Add(delta, bias_column)
  {activate}
  input = Mul(dt, u)
  dt4 = Reshape(dt, wide)
  dts = Transpose <perm = [3, 0, 2, 1]> (dt4)
  x4 = Reshape(input, wide)
  xs = Transpose <perm = [3, 0, 2, 1]> (x4)
  b4 = Reshape(B, narrow)
  bs = Transpose <perm = [3, 0, 2, 1]> (b4)
  c4 = Reshape(C, narrow)
  cs = Transpose <perm = [3, 0, 2, 1]> (c4)
  a3 = Reshape(A, group_shape)
  a_tiled = Tile(a3, repeats)
  rates = Unsqueeze(a_tiled, second)

  zero = ConstantOfShape <value = float[1] {{0}}> (state_shape)
  h_end = Scan <num_scan_inputs = 3, scan_input_directions = [{way}, {way}, {way}],
    body = advance (float[{s},{k},{e},{n}] h, float[{s},{k},{e}] dt1, float[{s},{k},{e}] x1,
                    float[{s},{k},{n}] b1) => (float[{s},{k},{e},{n}] h_next) {{
      dt_col = Unsqueeze(dt1, last)
      exponent = Mul(dt_col, rates)
      decay = Exp(exponent)
      kept = Mul(decay, h)
      x_col = Unsqueeze(x1, last)
      b_row = Unsqueeze(b1, before_last)
      added = Mul(x_col, b_row)
      h_next = Add(kept, added)
    }}> (zero, dts, xs, bs)
  dt_sum = ReduceSum <keepdims = 0> (dts, first)
  dt_total = Unsqueeze(dt_sum, last)
  total_exponent = Mul(dt_total, rates)
  total_decay = Exp(total_exponent)
  ends = Transpose <perm = [1, 0, 2, 3]> (h_end)
  decays = Transpose <perm = [1, 0, 2, 3]> (total_decay)
  carry_zero = ConstantOfShape <value = float[1] {{0}}> (carry_shape)
  unused, starts = Scan <num_scan_inputs = 2, scan_input_directions = [{way}, {way}],
    scan_output_directions = [{way}],
    body = carry (float[{s},{e},{n}] state, float[{s},{e},{n}] p1, float[{s},{e},{n}] h1)
      => (float[{s},{e},{n}] state_next, float[{s},{e},{n}] start) {{
      start = Identity(state)
      faded = Mul(p1, state)
      state_next = Add(faded, h1)
    }}> (carry_zero, decays, ends)
  begin = Transpose <perm = [1, 0, 2, 3]> (starts)
  unused2, ys = Scan <num_scan_inputs = 4, scan_input_directions = [{way}, {way}, {way}, {way}],
    scan_output_directions = [{way}],
    body = emit (float[{s},{k},{e},{n}] h, float[{s},{k},{e}] dt1, float[{s},{k},{e}] x1,
                 float[{s},{k},{n}] b1, float[{s},{k},{n}] c1)
      => (float[{s},{k},{e},{n}] h_next, float[{s},{k},{e}] y1) {{
      dt_col = Unsqueeze(dt1, last)
      exponent = Mul(dt_col, rates)
      decay = Exp(exponent)
      kept = Mul(decay, h)
      x_col = Unsqueeze(x1, last)
      b_row = Unsqueeze(b1, before_last)
      added = Mul(x_col, b_row)
      h_next = Add(kept, added)
      c_row = Unsqueeze(c1, before_last)
      weighted = Mul(h_next, c_row)
      y1 = ReduceSum <keepdims = 0> (weighted, last)
    }}> (begin, dts, xs, bs, cs)
  y4 = Transpose <perm = [1, 3, 2, 0]> (ys)
  scanned = Reshape(y4, whole)
  skip_column = Reshape(D, column)
  skipped = Mul(u, skip_column)
  y = Add(scanned, skipped)
}}
""".replace(
        "  zero = ConstantOfShape",
        f"  state_shape = Constant <value_ints = [{s}, {k}, {e}, {n}]> ()\n"
        f"  carry_shape = Constant <value_ints = [{s}, {e}, {n}]> ()\n"
        "  zero = ConstantOfShape",
    )
