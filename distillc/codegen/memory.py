"""How much memory a compiled network plans for its activations."""

from __future__ import annotations

import tvm
from tvm import relax


def planned_bytes(mod: tvm.IRModule) -> int:
    """Return the bytes of all storage that activations share, by TVM's static plan.

    Input, output, weights and a kernel's own tiles are not in it.

    Args:
        mod: A lowered module, scheduled or not.
    """
    transforms = relax.transform
    planned = tvm.ir.transform.Sequential(
        [
            transforms.ToNonDataflow(),
            transforms.RemovePurityChecking(),
            transforms.CallTIRRewrite(),
            transforms.StaticPlanBlockMemory(),
        ]
    )(mod)
    sizes: list[int] = []

    def visit(expr: object) -> None:
        if isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == _ALLOCATION:
            sizes.append(int(expr.args[0].values[0]))

    relax.analysis.post_order_visit(planned["main"], visit)
    return sum(sizes)


_ALLOCATION = "relax.memory.alloc_storage"
