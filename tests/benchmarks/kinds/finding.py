"""Networks whose attention is written in other ways."""

from __future__ import annotations

from tests.benchmarks.kinds.kind import kind
from tests.benchmarks.kinds.parts import ChannelBlock, Restorer


@kind("channel attention", found="2 channel ChannelBlock")
class Channel(Restorer):
    def __init__(self) -> None:
        super().__init__(ChannelBlock(), ChannelBlock())
