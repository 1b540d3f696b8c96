"""Transposed convolutions whose windows do not overlap: a product, and pixels moved apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Compute all outputs of a pixel as channels: TVM's own form multiplies by zeros in between.

    Other types than float32 are convolved in it, and the result has their type.
    """
    if x.dtype != torch.float32:
        narrow = [None if each is None else each.to(torch.float32) for each in (x, weight, bias)]
        settings = (stride, padding, dilation, transposed, output_padding, groups)
        convolved: Tensor = aten.convolution.default(*narrow, *settings)
        return convolved.to(x.dtype)
    window = list(weight.shape[2:])
    apart = window == list(stride) and not any(padding) and not any(output_padding)
    if not transposed or len(window) != 2 or not apart or groups != 1 or set(dilation) != {1}:
        return NotImplemented
    rows, columns = window
    count = weight.shape[1]
    kernel = weight.permute(1, 2, 3, 0).reshape(count * rows * columns, -1, 1, 1)
    y = torch.nn.functional.conv2d(x, kernel)
    y = y.reshape(-1, count, rows, columns, *x.shape[2:]).permute(0, 1, 4, 2, 5, 3)
    y = y.reshape(-1, count, rows * x.shape[2], columns * x.shape[3])
    return y if bias is None else y + bias[:, None, None]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {aten.convolution.default: _convolution}
