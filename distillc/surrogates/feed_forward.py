"""The gated feed-forward inside a transformer block, as weights a surrogate can start from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GatedFeedForward:
    """W_out (act(a) * b),  a, b = dw(W_in norm(x)), with K hidden channels on C.

    Attributes:
        norm: The norm's weight, (C,); None where no norm stands before it.
        project_in: (2 K, C, 1, 1), the rows of a first.
        dwconv: (2 K, 1, k, k).
        project_out: (C, K, 1, 1).
    """

    norm: Tensor | None
    project_in: Tensor
    dwconv: Tensor
    project_out: Tensor

    def narrow(self, hidden: int) -> GatedFeedForward:
        """Keep the hidden channels whose weights are largest, at most so many, in their order."""
        size = self.project_out.shape[1]
        gains = (
            self.project_in.flatten(1).norm(dim=1) * self.dwconv.flatten(1).norm(dim=1)
        ).reshape(2, size)
        importance = gains.prod(0) * self.project_out.flatten(2).norm(dim=(0, 2))
        best = importance.topk(min(hidden, size)).indices.sort().values
        both = torch.cat([best, best + size])
        return GatedFeedForward(
            self.norm, self.project_in[both], self.dwconv[both], self.project_out[:, best]
        )


def find_feed_forward(block: nn.Module, channels: int) -> GatedFeedForward | None:
    """Find a gated depthwise feed-forward by its shapes: Restormer's (section 3.2), NAFNet's.

    Three convolutions in a row, in the order of the module's children: 1x1 from C to 2 K channels,
    depthwise, 1x1 from K to C. Of several the last counts.

    Args:
        block: A block on (B, C, H, W).
        channels: Channels of the image.
    """
    found: GatedFeedForward | None = None
    norm: Tensor | None = None
    norms: list[Tensor | None] = []
    convolutions: list[nn.Conv2d] = []
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            convolutions.append(module)
            norms.append(norm)
        elif (weight := _norm_weight(module, channels)) is not None:
            norm = weight
    for first, depthwise, last, before in zip(
        convolutions, convolutions[1:], convolutions[2:], norms, strict=False
    ):
        wide = first.out_channels
        fits = (
            first.kernel_size == last.kernel_size == (1, 1)
            and first.in_channels == last.out_channels == channels
            and wide == depthwise.out_channels == depthwise.groups == 2 * last.in_channels
            and first.groups == last.groups == 1
        )
        if fits:
            found = GatedFeedForward(before, first.weight, depthwise.weight, last.weight)
    return found


def _norm_weight(module: nn.Module, channels: int) -> Tensor | None:
    """Return a module's own weight if it is one number a channel."""
    weight = module._parameters.get("weight")
    return None if weight is None or weight.shape != (channels,) else weight
