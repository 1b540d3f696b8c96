"""The selective scan in ONNX: as one node, or as standard `Scan` nodes in the two-level form.

There, positions are split into chunks, all chunks take a step at once, and a short scan over the
chunks carries their states. For L positions that is about 3 sqrt(L) iterations instead of L.
"""

from __future__ import annotations

import math

from distillc.codegen.build.onnx_linear_attention import linear_attention

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


def selective_scan_body(*sizes: int, fused: bool) -> str:
    """Return the body of an ONNX function (u, delta, A, B, C, D, bias) -> y in ONNX's text form.

    Args:
        sizes: Batch, channels, length, states, groups; whether step sizes pass through softplus,
            and whether it runs backwards, as 0 or 1.
        fused: As in `axial_scan_body`.
    """
    batch, channels, length, states, groups, softplus, way = sizes
    make = _one_node if fused else _two_levels
    return f"""
  column = Constant <value_ints = [{channels}, 1]> ()
  last = Constant <value_ints = [-1]> ()
  before_last = Constant <value_ints = [-2]> ()
  first = Constant <value_ints = [0]> ()
  second = Constant <value_ints = [1]> ()
  whole = Constant <value_ints = [{batch}, {channels}, {length}]> ()
  bias_column = Reshape(bias, column)
  biased = Add(delta, bias_column)
  dt = {"Softplus" if softplus else "Identity"}(biased)
{make(batch, channels, length, states, groups, way)}
  skip_column = Reshape(D, column)
  skipped = Mul(u, skip_column)
  y = Add(scanned, skipped)
"""


def _one_node(batch: int, channels: int, length: int, states: int, groups: int, way: int) -> str:
    """Return `scanned` from u, dt, A, B and C: every channel is a head."""
    places = ", ".join(str(channel * groups // channels) for channel in range(channels))
    return f"""
  places = Constant <value_ints = [{places}]> ()
  groups = Constant <value_ints = [{batch}, {groups}, {states}, {length}]> ()
  steps = Constant <value_ints = [{batch}, {length}, {channels * states}]> ()
  dt_steps = Transpose <perm = [0, 2, 1]> (dt)
  dt_column = Unsqueeze(dt_steps, last)
  b_groups = Reshape(B, groups)
  b_channels = Gather <axis = 1> (b_groups, places)
  b_last = Transpose <perm = [0, 3, 1, 2]> (b_channels)
  into = Mul(dt_column, b_last)
  into_steps = Reshape(into, steps)
  c_groups = Reshape(C, groups)
  c_channels = Gather <axis = 1> (c_groups, places)
  c_last = Transpose <perm = [0, 3, 1, 2]> (c_channels)
  c_steps = Reshape(c_last, steps)
  exponent = Mul(dt_column, A)
  exponent_steps = Reshape(exponent, steps)
  x_steps = Transpose <perm = [0, 2, 1]> (u)
{linear_attention("", channels, length, bool(way))}
  scanned = Transpose <perm = [0, 2, 1]> (y_steps)
"""


def _two_levels(batch: int, channels: int, length: int, states: int, groups: int, way: int) -> str:
    """Return the same by standard operators.

    1. Each group is a sequence of its own: S = batch * groups, E = channels / groups.
    2. All K chunks take T steps from a zero state; their final states and total decays remain.
    3. A scan over the K chunks gives the state each begins with.
    4. The T steps again, from those states, with the output.
    """
    s, e, n = batch * groups, channels // groups, states
    t = chunk_length(length)
    k = length // t
    return f"""
  wide = Constant <value_ints = [{s}, {e}, {k}, {t}]> ()
  narrow = Constant <value_ints = [{s}, {n}, {k}, {t}]> ()
  group_shape = Constant <value_ints = [{groups}, {e}, {n}]> ()
  repeats = Constant <value_ints = [{batch}, 1, 1]> ()
  state_shape = Constant <value_ints = [{s}, {k}, {e}, {n}]> ()
  carry_shape = Constant <value_ints = [{s}, {e}, {n}]> ()
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
"""
