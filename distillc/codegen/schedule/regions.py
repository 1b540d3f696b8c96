"""Whether a schedule computes all that its blocks read.

TVM's primitives look at one block at a time. A tile of fused axes may end within a row; the block
that writes it back then copies whole rows, with values that other tiles, or no one, have computed.
"""

from __future__ import annotations

from collections.abc import Iterator

import tvm
from tvm import s_tir
from tvm.s_tir.schedule import SBlockRV


def uncovered_blocks(mod: tvm.IRModule) -> list[str]:
    """Return the names of blocks that read what is not computed before, where they read it.

    Args:
        mod: A scheduled `main`.
    """
    sch = s_tir.Schedule(mod)  # what a schedule keeps of its blocks while it changes is too kind
    blocks = list(_blocks_in(sch, sch.get_sblock("root")))
    # Zeros and what they surround are written by two blocks; TVM does not see that both together
    # cover what a window with strides reads.
    padded = {
        write.source.name
        for block in map(sch.get, blocks)
        for write in block.writes
        if block.name_hint.endswith("_pad_const")
    }
    return [
        str(sch.get(block).name_hint)
        for block in blocks
        if not sch.state._get_cached_flags(sch.get_sref(block)).region_cover
        and not any(read.source.name in padded for read in sch.get(block).reads)
    ]


def _blocks_in(sch: s_tir.Schedule, block: SBlockRV) -> Iterator[SBlockRV]:
    for child in sch.get_child_blocks(block):
        yield child
        yield from _blocks_in(sch, child)
