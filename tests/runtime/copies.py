"""Bundles without compiled code, whose networks copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distillc.runtime.bundle import Bundle
from distillc.runtime.manifest import Manifest


class Copy(Bundle):
    """Gives its input, every pixel as a square of `scale`.

    Attributes:
        seen: Every input.
    """

    def __init__(
        self,
        channels: int = 3,
        tile: tuple[int, int] = (32, 32),
        scale: int = 1,
        made: int = 0,
    ) -> None:
        super().__init__(Path("copy"), {})
        self._facts = Manifest.model_construct(
            input_shape=(1, channels, *tile),
            output_shape=(1, made or channels, tile[0] * scale, tile[1] * scale),
            scale=scale,
        )
        self.seen: list[np.ndarray[Any, Any]] = []

    @property
    def facts(self) -> Manifest:
        return self._facts

    def run(self, x: Any, *_: Any, **__: Any) -> Any:
        self.seen.append(x)
        made, scale = self.facts.output_shape[1], self.facts.scale
        y = x if x.shape[1] == made else np.repeat(x[:, :1], made, axis=1)
        return y.repeat(scale, axis=2).repeat(scale, axis=3)
