"""Whether a schedule computes all that its blocks read.

TVM's primitives look at one block at a time. A tile of fused axes may end within a row; the block
that writes it back then copies whole rows, with values that other tiles, or no one, have computed.
"""

from __future__ import annotations

import tvm
from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV


def uncovered_blocks(mod: tvm.IRModule) -> list[str]:
    """Return the names of blocks that read what is not computed before, where they read it.

    Args:
        mod: A scheduled `main`.
    """
    sch = s_tir.Schedule(mod)  # what a schedule keeps of its blocks while it changes is too kind
    found: list[str] = []

    def visit(block: SBlockRV) -> None:
        for child in sch.get_child_blocks(block):
            flags = sch.state._get_cached_flags(sch.get_sref(child))
            # The primitives see to what is affine; there, strides alone make the flag false.
            if not flags.affine_binding and not flags.region_cover:
                found.append(str(sch.get(child).name_hint))
            visit(child)

    visit(sch.get_sblock("root"))
    return found
