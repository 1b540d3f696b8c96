"""Feed-forwards and attentions made of convolutions, as weights that surrogates start from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

GATED = 2
"""Parts of a gated feed-forward: gate and value."""
ATTENTION = 3
"""Parts of an attention: queries, keys and values."""


@dataclass(frozen=True)
class Branches:
    """W_out f(p_1, ..., p_n),  p_1, ..., p_n = dw(W_in norm(x)): n parts of K channels each, on C.

    Attributes:
        norm: The norm's weight, (C,); None where no norm stands before it.
        project_in: (n K, C, 1, 1), the rows of the first part first.
        dwconv: (n K, 1, k, k).
        project_out: (C, K, 1, 1).
        heads: Of the K channels, in each part.
    """

    norm: Tensor | None
    project_in: Tensor
    dwconv: Tensor
    project_out: Tensor
    heads: int = 1

    def narrow(self, hidden: int, first: int = 0, heads: int = 1) -> Branches:
        """Keep the channels whose weights are largest, at most so many, in their order.

        Args:
            hidden: K afterwards, at most.
            first: Parts before this one do not count.
            heads: A divisor of K before and after: equally many are kept in each of so many runs.
        """
        size = self.project_out.shape[1]
        gains = self.project_in.flatten(1).norm(dim=1) * self.dwconv.flatten(1).norm(dim=1)
        gains = gains.reshape(-1, size)
        importance = gains[first:].prod(0) * self.project_out.flatten(2).norm(dim=(0, 2))
        runs = importance.reshape(heads, -1)
        best = runs.topk(min(hidden, size) // heads).indices.sort().values
        best = (best + torch.arange(heads)[:, None] * runs.shape[1]).flatten()
        rows = torch.cat([best + part * size for part in range(len(gains))])
        return Branches(
            self.norm, self.project_in[rows], self.dwconv[rows], self.project_out[:, best], heads
        )


def find_branches(block: nn.Module, channels: int, parts: int) -> Branches | None:
    """Find a gated feed-forward or an attention by its shapes: Restormer's (section 3), NAFNet's.

    Three convolutions in a row, in the order of the module's children: 1x1 from C to n K channels,
    depthwise, 1x1 from K to C. Of several the last counts.

    Args:
        block: A block on (B, C, H, W).
        channels: Channels of the image.
        parts: n, `GATED` or `ATTENTION`.
    """
    found: Branches | None = None
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
            and wide == depthwise.out_channels == depthwise.groups == parts * last.in_channels
            and first.groups == last.groups == 1
        )
        if fits:
            heads = _find_heads(block, last.in_channels) if parts == ATTENTION else 1
            found = Branches(before, first.weight, depthwise.weight, last.weight, heads)
    return found


def _find_heads(block: nn.Module, size: int) -> int:
    """Return how many heads an attention has: as many as temperatures, (heads, 1, 1)."""
    for weight in block.parameters():
        if weight.dim() == 3 and weight.shape[1:] == (1, 1) and size % len(weight) == 0:
            return len(weight)
    return 1


def _norm_weight(module: nn.Module, channels: int) -> Tensor | None:
    """Return a module's own weight if it is one number a channel."""
    weight = module._parameters.get("weight")
    return None if weight is None or weight.shape != (channels,) else weight
