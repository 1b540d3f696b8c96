"""Crops of what teacher and hybrid make of images, for the report."""

from __future__ import annotations

import torch
from torch import Tensor

from distillc.data.images import RestorationData
from distillc.network import Network

EDGE = 160
"""Of the crops, pixels."""

ROWS = 2


@torch.no_grad()
def side_by_side(
    teacher: Network, net: Network, images: RestorationData
) -> list[dict[str, Tensor]]:
    """Return a row of crops for each of the first images that nothing saw.

    Args:
        teacher: The network before the passes.
        net: The network after them.
        images: Data with test images.

    Returns:
        Rows of (1, C, H, W) float32: input, teacher, hybrid and clean.

    Raises:
        DataError: An image cannot be decoded.
    """
    rows = []
    networks = {"teacher": teacher.module, "hybrid": net.hybrid()}
    for image in images.unseen(teacher.window(EDGE), ROWS):
        degraded, clean = image.pairs[0]
        outputs = {who: module(degraded) for who, module in networks.items()}
        rows.append({"input": degraded, **outputs, "clean": clean})
    return rows
