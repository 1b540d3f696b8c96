"""The selective scan as ONNX `Scan` nodes, in the two-level form.

Positions are split into chunks, all chunks take a step at once, and a short scan over the chunks
carries their states. For L positions that is about 3 sqrt(L) iterations instead of L.
"""

from __future__ import annotations

import math

_STEP = """\
      dt_col = Unsqueeze(dt1, last)
      exponent = Mul(dt_col, rates)
      decay = Exp(exponent)
      kept = Mul(decay, h)
      x_col = Unsqueeze(x1, last)
      b_row = Unsqueeze(b1, before_last)
      added = Mul(x_col, b_row)
      h_next = Add(kept, added)
"""
"""One position: (h, dt1, x1, b1) -> h_next."""


def chunk_length(length: int) -> int:
    """Return the divisor of a length that makes 2 T + L / T smallest: the chunks' length T."""
    divisors = [each for each in range(1, math.isqrt(length) + 1) if length % each == 0]
    divisors += [length // each for each in divisors]
    return min(divisors, key=lambda steps: 2 * steps + length // steps)


def selective_scan_body(*sizes: int) -> str:
    """Return the body of an ONNX function (u, delta, A, B, C, D, bias) -> y in ONNX's text form.

    Args:
        sizes: Batch, channels, length, states, groups; whether step sizes pass through softplus,
            and whether it runs backwards, as 0 or 1.

    1. Each group is a sequence of its own: S = batch * groups, E = channels / groups.
    2. All K chunks take T steps from a zero state; their final states and total decays remain.
    3. A scan over the K chunks gives the state each begins with.
    4. The T steps again, from those states, with the output.
    """
    batch, channels, length, states, groups, softplus, way = sizes
    s, e, n = batch * groups, channels // groups, states
    t = chunk_length(length)
    k = length // t
    activate = "dt = Softplus(biased)" if softplus else "dt = Identity(biased)"
    return f"""
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
{_STEP}    }}> (zero, dts, xs, bs)
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
{_STEP}      c_row = Unsqueeze(c1, before_last)
      weighted = Mul(h_next, c_row)
      y1 = ReduceSum <keepdims = 0> (weighted, last)
    }}> (begin, dts, xs, bs, cs)
  y4 = Transpose <perm = [1, 3, 2, 0]> (ys)
  scanned = Reshape(y4, whole)
  skip_column = Reshape(D, column)
  skipped = Mul(u, skip_column)
  y = Add(scanned, skipped)
""".replace(
        "  zero = ConstantOfShape",
        f"  state_shape = Constant <value_ints = [{s}, {k}, {e}, {n}]> ()\n"
        f"  carry_shape = Constant <value_ints = [{s}, {e}, {n}]> ()\n"
        "  zero = ConstantOfShape",
    )
