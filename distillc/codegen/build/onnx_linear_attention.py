"""A scan as one node of ONNX Runtime: `com.microsoft.LinearAttention`, rule "gated".

    S = exp(g) S + k v,  y = q S

The standard operator of this name (opset 27) means the same, but ONNX Runtime 1.32 runs it ten
times as slowly: as a loop.
"""

from __future__ import annotations

from functools import cache

import onnxruntime
from onnx import parser

CONTRIB = "com.microsoft"
_TRIAL = f"""
<ir_version: 8, opset_import: ["" : 18, "{CONTRIB}" : 1]>
trial (float[1, 1, 1] x) => (float[1, 1, 1] y) {{
  y, state = {CONTRIB}.LinearAttention <update_rule = "gated", scale = 1.0,
    q_num_heads = 1, kv_num_heads = 1> (x, x, x, , x)
}}
"""


@cache
def runs_here() -> bool:
    """Whether the installed ONNX Runtime has the operator."""
    model = parser.parse_model(_TRIAL).SerializeToString()
    try:
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception:  # its exceptions have no base of their own
        return False
    return True


def linear_attention(name: str, heads: int, steps: int, back: bool) -> str:
    """Return text of ONNX that computes a scan of many lines.

    It makes y_steps{name}, (lines, steps, heads v), from c_steps{name} and into_steps{name},
    (lines, steps, heads n), x_steps{name}, (lines, steps, heads v), and exponent_steps{name},
    (lines, steps, heads) or (lines, steps, heads n).

    Args:
        name: Ends the name of every value.
        heads: How many heads.
        steps: Length of a line.
        back: Whether it begins with the last step.
    """
    operands = [f"{each}_steps{name}" for each in ("c", "into", "x", "exponent")]
    result = f"y_steps{name}"
    text = ""
    if back:
        text += f"""
  turn{name} = Constant <value_ints = [-1]> ()
  last_step{name} = Constant <value_ints = [{steps - 1}]> ()
  past_first{name} = Constant <value_ints = [{-steps - 1}]> ()
  steps_axis{name} = Constant <value_ints = [1]> ()
"""
        bounds = f"last_step{name}, past_first{name}, steps_axis{name}, turn{name}"
        text += "".join(f"  {each}_back = Slice({each}, {bounds})\n" for each in operands)
        operands = [f"{each}_back" for each in operands]
        result = f"y_back{name}"
    c, into, x, exponent = operands
    text += f"""
  {result}, state{name} = {CONTRIB}.LinearAttention <update_rule = "gated", scale = 1.0,
    q_num_heads = {heads}, kv_num_heads = {heads}> ({c}, {into}, {x}, , {exponent})
"""
    if back:
        text += f"  y_steps{name} = Slice({result}, {bounds})\n"
    return text
