"""The network that the campaigns convert: the smallest with attention."""

from __future__ import annotations

from torch import Tensor, nn

from distillc.frontend.restormer import TransformerBlock


class Small(nn.Module):
    """Two of Restormer's blocks between two convolutions, (B, 3, H, W) -> (B, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(TransformerBlock(8, 2, 2.0, False, True) for _ in range(2)))
        self.tail = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = image + self.tail(self.blocks(self.head(image)))
        return restored
