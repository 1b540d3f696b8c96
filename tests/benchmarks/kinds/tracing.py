"""Networks whose Python a tracer stumbles over."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import ChannelBlock, Restorer


class Checkpointed(ChannelBlock):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        return y


@kind("gradient checkpointing left on", found="1 channel Checkpointed")
class Checkpointing(Restorer):
    def __init__(self) -> None:
        super().__init__(Checkpointed())
