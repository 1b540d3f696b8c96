"""The effective receptive field of networks: how far the pixels are that decide one pixel.

Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks"
(arXiv 1701.04128), section 4: the gradient of the pixel in the middle of the output with respect to
the input, here its absolute value, averaged over images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

_SHARE = 0.9


def receptive_field(module: nn.Module, images: Iterable[Tensor]) -> Tensor:
    """Return the mean influence of every input pixel, (H, W), of equal images (1, C, H, W)."""
    fields = []
    for image in images:
        x = image.clone().requires_grad_()
        y = module(x)
        y[:, :, y.shape[2] // 2, y.shape[3] // 2].sum().backward()
        assert x.grad is not None
        fields.append(x.grad.abs().sum((0, 1)))
    return torch.stack(fields).mean(0)


def radius(field: Tensor) -> int:
    """Return half the edge of the smallest square in the middle with 90 % of the influence."""
    height, width = field.shape
    for half in range(max(height, width)):
        rows = slice(max(0, height // 2 - half), height // 2 + half + 1)
        columns = slice(max(0, width // 2 - half), width // 2 + half + 1)
        if field[rows, columns].sum() >= _SHARE * field.sum():
            return half
    return max(height, width)


def plot_fields(path: Path, fields: Mapping[str, Tensor]) -> None:
    """Draw fields side by side, each relative to its largest value, on one logarithmic scale."""
    figure = Figure(figsize=(3.2 * len(fields), 3.4), dpi=140, layout="constrained")
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    for axis, (name, field) in zip(axes, fields.items(), strict=True):
        share = (field / field.max()).clamp_min(1e-6)
        shown = axis.imshow(share.numpy(), norm=LogNorm(1e-6, 1), cmap="magma")
        axis.set_title(f"{name}\n90 % within {radius(field)} pixels", fontsize=9)
        axis.set_axis_off()
    figure.colorbar(shown, ax=axes, label="influence, of the largest")
    figure.savefig(path)
