"""A network for sizes that are not multiples of what it needs."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Padded(nn.Module):
    """A network on images that are mirrored at their lower and right edges, and cut again.

    Args:
        network: (B, C, H', W') -> (B, C', H' * scale, W' * scale).
        size: (H', W') that it is given, not smaller than the images.
        scale: Output size / input size.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int], scale: int = 1) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        missing = (0, self.size[1] - width, 0, self.size[0] - height)
        mode = "reflect" if missing[1] < width and missing[3] < height else "replicate"
        y: Tensor = self.network(F.pad(x, missing, mode=mode))
        wanted = tuple(self.scale * extent for extent in self.size)
        if tuple(y.shape[2:]) != wanted:  # cutting it would hide that
            raise ValueError(f"the network returns {tuple(y.shape[2:])}, its scale says {wanted}")
        return y[:, :, : height * self.scale, : width * self.scale]
