"""The relative position indices of window attention, which some files lack."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

TABLE, INDEX = "relative_position_bias_table", "relative_position_index"


def with_indices(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the index for each table of biases that has none.

    Architectures are recognised by these indices, and windows measured by them. A table of
    (2w - 1)^2 rows is that of windows of w x w pixels (Swin, arXiv 2103.14030, section 3.2).
    """
    indices = {}
    for name, table in state.items():
        if not name.endswith(TABLE) or table.ndim != 2:
            continue
        offsets = math.isqrt(table.shape[0])
        if offsets % 2 and offsets**2 == table.shape[0]:
            indices[name.removesuffix(TABLE) + INDEX] = window_index((offsets + 1) // 2)
    return {**indices, **state}


def window_index(window: int) -> Tensor:
    """Return the row of the table for each pair of pixels, (window^2, window^2), int64."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    down = rows.reshape(-1, 1) - rows.reshape(1, -1) + window - 1
    right = columns.reshape(-1, 1) - columns.reshape(1, -1) + window - 1
    return down * (2 * window - 1) + right
