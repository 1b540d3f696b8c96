"""Convolutions whose windows do not overlap, and transposed ones: products, and pixels moved."""

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
    """Take all pixels of a window as channels of one.

    TVM's own form of a transposed one multiplies by zeros; of others, vectors would read every
    other pixel.

    Other types than float32 are convolved in it, and the result has their type.
    """
    if x.dtype != torch.float32:
        narrow = [None if each is None else each.to(torch.float32) for each in (x, weight, bias)]
        settings = (stride, padding, dilation, transposed, output_padding, groups)
        convolved: Tensor = aten.convolution.default(*narrow, *settings)
        return convolved.to(x.dtype)
    window = list(weight.shape[2:])
    apart = window == list(stride) and not any(padding) and not any(output_padding)
    if len(window) != 2 or not apart or groups != 1 or set(dilation) != {1}:
        return NotImplemented
    rows, columns = window
    if not transposed:
        height, width = (size // step for size, step in zip(x.shape[2:], window, strict=True))
        if window == [1, 1] or x.shape[2:] != (height * rows, width * columns):
            return NotImplemented
        x = x.reshape(-1, weight.shape[1], height, rows, width, columns).permute(0, 1, 3, 5, 2, 4)
        x = x.reshape(-1, weight.shape[1] * rows * columns, height, width)
        return torch.nn.functional.conv2d(x, weight.reshape(len(weight), -1, 1, 1), bias)
    count = weight.shape[1]
    kernel = weight.permute(1, 2, 3, 0).reshape(count * rows * columns, -1, 1, 1)
    y = torch.nn.functional.conv2d(x, kernel)
    y = y.reshape(-1, count, rows, columns, *x.shape[2:]).permute(0, 1, 4, 2, 5, 3)
    y = y.reshape(-1, count, rows * x.shape[2], columns * x.shape[3])
    return y if bias is None else y + bias[:, None, None]


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {aten.convolution.default: _convolution}
