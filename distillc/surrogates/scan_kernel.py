"""The selective scan's compiled kernel: tensors in, tensors out."""

from __future__ import annotations

import ctypes

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
    softplus: bool,
    reverse: bool,
) -> Tensor:
    """Return y (S, L, D): h = exp(dt A) h + dt B u, y = C h + skip u, dt = softplus(delta + bias).

    Args:
        u, delta: (S, L, D) float32, contiguous; S sequences.
        A: (G, N, D) float32, contiguous; sequence s uses group s % G.
        B, C: (S, L, N) float32, contiguous.
        skip, bias: (G, D) float32, contiguous.
        softplus: False takes delta + bias as it is.
        reverse: Scan from the last position to the first.
    """
    kernel = library()
    sequences, length, channels = u.shape
    groups, states, _ = A.shape
    y = torch.empty_like(u)
    sizes = (ctypes.c_int64(length), channels, states, int(softplus), int(reverse))

    def run(s: int) -> int:
        g = s % groups
        tensors = (u[s], delta[s], A[g], B[s], C[s], skip[g], bias[g], y[s])
        return int(kernel.scan_forward(*map(pointer, tensors), *sizes))

    each_sequence(sequences, run)
    return y


def backward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor,
    bias: Tensor,
    softplus: bool,
    reverse: bool,
    gy: Tensor,
) -> tuple[Tensor, ...]:
    """Return (y, gu, gdelta, gA, gB, gC, gskip) for the gradient `gy` of `forward`'s result.

    Shapes as in `forward`; gA is (S, N, D) and gskip (S, D), one per sequence.
    """
    kernel = library()
    sequences, length, channels = u.shape
    groups, states, _ = A.shape
    y, gu, gdelta = (torch.empty_like(u) for _ in range(3))
    gA = u.new_empty(sequences, states, channels)
    gB, gC = torch.empty_like(B), torch.empty_like(C)
    gskip = u.new_empty(sequences, channels)
    sizes = (ctypes.c_int64(length), channels, states, int(softplus), int(reverse))

    def run(s: int) -> int:
        g = s % groups
        inputs = (u[s], delta[s], A[g], B[s], C[s], skip[g], bias[g], gy[s])
        outputs = (y[s], gu[s], gdelta[s], gA[s], gB[s], gC[s], gskip[s])
        return int(kernel.scan_backward(*map(pointer, (*inputs, *outputs)), *sizes))

    each_sequence(sequences, run)
    return y, gu, gdelta, gA, gB, gC, gskip
