"""Networks that are called in other ways, or return other things."""

from __future__ import annotations

from torch import Tensor

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import ChannelBlock, Restorer


@kind("several images out", found="1 channel ChannelBlock", options={"output": 0})
class SeveralImages(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock())

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        restored = super().forward(x)
        return [restored, restored + x]


@kind("a dictionary out", found="1 channel ChannelBlock")
class Dictionary(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock())

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"restored": super().forward(x), "mean": x.mean((1, 2, 3))}
