"""The axial scan's compiled kernel: tensors in, tensors out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distillc.surrogates.native import each_sequence, library, pointer


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor,
    bias: Tensor,
    directions: Sequence[int],
) -> Tensor:
    """Return y as `axial_scan` does.

    Args:
        u, delta: (b, d, h, w) and (b, g, h, w) float32, channels innermost.
        A, skip, bias: (g,), (d,), (g,) float32, contiguous.
        B, C: (b, m, n, h, w) float32, m and n innermost.
        directions: 0 down, 1 right, 2 up, 3 left; each for as many heads.
    """
    y = torch.empty_like(u)
    sizes = _sizes(u, A, B, directions)

    def run(i: int) -> int:
        tensors = (u[i], delta[i], A, B[i], C[i], skip, bias, y[i])
        return int(library().axial_forward(*map(pointer, tensors), *sizes))

    each_sequence(len(u), run)
    return y


def backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor,
    bias: Tensor,
    directions: Sequence[int],
    gy: Tensor,
) -> list[Tensor]:
    """Return (gu, gdelta, gA, gB, gC, gskip) for the gradient `gy` of `forward`'s result."""
    gu, gdelta, gB, gC = (torch.empty_like(each) for each in (u, delta, B, C))
    gA, gskip = (each.new_empty(len(u), len(each)) for each in (A, skip))  # one for each image
    sizes = _sizes(u, A, B, directions)

    def run(i: int) -> int:
        inputs = (u[i], delta[i], A, B[i], C[i], skip, bias, gy[i])
        outputs = (gu[i], gdelta[i], gA[i], gB[i], gC[i], gskip[i])
        return int(library().axial_backward(*map(pointer, (*inputs, *outputs)), *sizes))

    each_sequence(len(u), run)
    return [gu, gdelta, gA.sum(0), gB, gC, gskip.sum(0)]


def _sizes(u: Tensor, A: Tensor, B: Tensor, directions: Sequence[int]) -> tuple[Any, ...]:
    """Return the direction of each head, H, W, channels, heads, groups, states."""
    heads = len(A)
    each = [code for code in directions for _ in range(heads // len(directions))]
    return ((ctypes.c_int * heads)(*each), *u.shape[2:], u.shape[1], heads, *B.shape[1:3])
