"""No surrogate at all: what a network loses without a block."""

from __future__ import annotations

from torch import Tensor

from distillc.surrogates.family import Family
from distillc.surrogates.stand_in import StandIn


class SkipSurrogate(StandIn):
    """Leaves a block out: x, or 0 for an attention whose sum stands outside.

    It has nothing to train. The blocks around it make up for it when surrogates are trained in
    hybrids and when the hybrid is healed.

    Args:
        whole_block: Whether it replaces a whole residual block, or an attention inside one.
    """

    def __init__(self, whole_block: bool) -> None:
        super().__init__()
        self.whole_block = whole_block

    def forward(self, x: Tensor) -> Tensor:
        return x if self.whole_block else x * 0.0


SKIP = Family(
    name="skip",
    does="nothing: the block is left out, and the others make up for it",
    build=lambda channels, whole_block, options: SkipSurrogate(whole_block),
)
