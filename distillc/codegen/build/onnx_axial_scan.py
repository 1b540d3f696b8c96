"""The axial scan in ONNX: one node a direction, all lines of the image side by side."""

from __future__ import annotations

import math

from distillc.codegen.build.onnx_linear_attention import linear_attention


def axial_scan_body(*sizes: int, fused: bool) -> str:
    """Return the body of an ONNX function (u, delta, A, B, C, D, bias) -> y in ONNX's text form.

    Args:
        sizes: Batch, channels, height, width, heads, groups of B and C, states; then the directions
            as `distillc.codegen.kernels.axial_scan.Sizes` has them.
        fused: Whether ONNX Runtime's `LinearAttention` scans, with its rule "gated", instead of
            `Scan`, which is standard.
    """
    b, d, height, width, g, m, n, *ways = sizes
    share, own = d // g, g // len(ways)
    groups = ", ".join(str(head * m // g) for head in range(g))
    text = f"""
  column = Constant <value_ints = [{g}, 1, 1]> ()
  deep = Constant <value_ints = [{d}, 1, 1]> ()
  heads = Constant <value_ints = [{b}, {g}, {share}, {height}, {width}]> ()
  whole = Constant <value_ints = [{b}, {d}, {height}, {width}]> ()
  groups = Constant <value_ints = [{groups}]> ()
  one = Constant <value_ints = [1]> ()
  second = Constant <value_ints = [2]> ()
  third = Constant <value_ints = [3]> ()
  bias_column = Reshape(bias, column)
  biased = Add(delta, bias_column)
  dt = Softplus(biased)
  rates = Reshape(A, column)
  exponent = Mul(dt, rates)
  dt_row = Unsqueeze(dt, second)
  b_heads = Gather <axis = 1> (B, groups)
  into = Mul(dt_row, b_heads)
  c_heads = Gather <axis = 1> (C, groups)
  x = Reshape(u, heads)
"""
    for number, code in enumerate(ways):
        text += f"""
  from{number} = Constant <value_ints = [{number * own}]> ()
  to{number} = Constant <value_ints = [{(number + 1) * own}]> ()
  exponent{number} = Slice(exponent, from{number}, to{number}, one)
  into{number} = Slice(into, from{number}, to{number}, one)
  c{number} = Slice(c_heads, from{number}, to{number}, one)
  x{number} = Slice(x, from{number}, to{number}, one)
"""
        scan = _linear_attention if fused else _scan
        text += scan(str(number), code, b, own, share, n, height, width)
    scans = ", ".join(f"y{number}" for number in range(len(ways)))
    return (
        text
        + f"""
  scanned = Concat <axis = 1> ({scans})
  flat = Reshape(scanned, whole)
  skip = Reshape(D, deep)
  skipped = Mul(u, skip)
  y = Add(flat, skipped)
"""
    )


def _scan(
    number: str, code: int, b: int, own: int, share: int, n: int, height: int, width: int
) -> str:
    """Return y of a direction from its x, exponents, into and c, all (b, own, ..., h, w)."""
    axis, lines = (4, height) if code % 2 else (3, width)
    back = int(code >= 2)
    return f"""
  decay{number} = Exp(exponent{number})
  shape{number} = Constant <value_ints = [{b}, {own}, {share}, {n}, {lines}]> ()
  zero{number} = ConstantOfShape <value = float[1] {{0}}> (shape{number})
  last{number}, y{number} = Scan <num_scan_inputs = 4,
    scan_input_axes = [{axis - 1}, {axis}, {axis}, {axis}],
    scan_input_directions = [{back}, {back}, {back}, {back}],
    scan_output_axes = [{axis}], scan_output_directions = [{back}],
    body = step{number} (float[{b},{own},{share},{n},{lines}] h, float[{b},{own},{lines}] decay1,
                 float[{b},{own},{n},{lines}] into1, float[{b},{own},{share},{lines}] x1,
                 float[{b},{own},{n},{lines}] c1)
      => (float[{b},{own},{share},{n},{lines}] h_next, float[{b},{own},{share},{lines}] y1) {{
      decay_a = Unsqueeze(decay1, second)
      decay_b = Unsqueeze(decay_a, third)
      kept = Mul(decay_b, h)
      x_row = Unsqueeze(x1, third)
      into_row = Unsqueeze(into1, second)
      added = Mul(x_row, into_row)
      h_next = Add(kept, added)
      c_row = Unsqueeze(c1, second)
      weighted = Mul(h_next, c_row)
      y1 = ReduceSum <keepdims = 0> (weighted, third)
    }}> (zero{number}, decay{number}, into{number}, x{number}, c{number})
"""


def _linear_attention(
    number: str, code: int, b: int, own: int, share: int, n: int, height: int, width: int
) -> str:
    """Return the same by one operator on all lines."""
    lines, steps = (height, width) if code % 2 else (width, height)
    text = ""
    for name, held in (("c", [n]), ("into", [n]), ("x", [share]), ("exponent", [])):
        rank = 4 + len(held)
        order = [0, rank - 2, rank - 1] if code % 2 else [0, rank - 1, rank - 2]
        order += range(1, rank - 2)
        text += f"""
  {name}_size{number} = Constant <value_ints = [{b * lines}, {steps}, {own * math.prod(held)}]> ()
  {name}_last{number} = Transpose <perm = {order}> ({name}{number})
  {name}_steps{number} = Reshape({name}_last{number}, {name}_size{number})
"""
    order = [0, 3, 4, 1, 2] if code % 2 else [0, 3, 4, 2, 1]
    return (
        text
        + linear_attention(number, own, steps, code >= 2)
        + f"""
  y_size{number} = Constant <value_ints = [{b}, {lines}, {steps}, {own}, {share}]> ()
  y_last{number} = Reshape(y_steps{number}, y_size{number})
  y{number} = Transpose <perm = {order}> (y_last{number})
"""
    )
