"""Keep the arithmetic of single vectors out of the kernels of images."""

from __future__ import annotations

import tvm
from tvm import tirx

OPAQUE = 8
"""What TVM's fusion takes with nothing."""


@tvm.transform.module_pass(opt_level=0, name="PartVectors")
class PartVectors:
    """Forbid TVM's fusion to compute a vector inside the kernel of an image that reads it.

    1. Kernels with results (1, C, 1, 1), which gates of channels are made of, fuse with nothing;
       `fuse_kernels` joins them with each other.

    TVM would fuse the last product of a gate, its sigmoid and the multiplication of all pixels. The
    next product could not take that in.

    Given:   op_pattern of a sigmoid of (1, C, 1, 1)
    Result:  opaque
    """

    def transform_module(self, mod: tvm.IRModule, _: object) -> tvm.IRModule:
        """Mark the kernels of a legalised module."""
        marked = tvm.IRModule(mod.functions, attrs=mod.attrs, global_infos=mod.global_infos)
        for name, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and _is_vector(func):
                marked[name] = func.with_attr("op_pattern", OPAQUE)
        return marked


def _is_vector(func: tirx.PrimFunc) -> bool:
    shape = func.params[-1].ty.shape if len(func.params) else []
    return len(shape) == 4 and all(
        isinstance(each, tirx.IntImm) and int(each) == 1 for each in (shape[0], *shape[2:])
    )
