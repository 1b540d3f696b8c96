"""What a parent asks of the module that it holds, once another one is there."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class StandIn(nn.Module):
    """A surrogate, which answers for the block that it replaces.

    Parents read attributes of their parts: `nn.TransformerEncoder` asks its first layer for
    `self_attn.batch_first`. What a surrogate lacks is read from the block, whose weights are gone.
    """

    def stand_in_for(self, block: nn.Module) -> None:
        """Answer for this block, a copy on the meta device."""
        self.__dict__["_replaced"] = block  # registered, it would be a part of the network

    def calibrate(self, given: Tensor, mixed: Tensor) -> None:
        """Start from what the block does on real input, where that helps.

        Args:
            given: Its input, (B, C, H, W) float32; the attention's where that is replaced.
            mixed: What its attention returned, shaped alike.
        """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            block = self.__dict__.get("_replaced")
            if block is None or name.startswith("_"):
                raise
            return getattr(block, name)
