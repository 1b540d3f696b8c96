"""The selective scan in plain torch: for devices without a kernel. Slow, one step at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """Return y (S, L, D); arguments as in `scan_kernel.forward`, on any device."""
    sequences, length, channels = u.shape
    repeats = sequences // A.shape[0]
    rates, skips, biases = (
        each.repeat(repeats, *[1] * (each.dim() - 1)) for each in (A, skip, bias)
    )
    dt = delta + biases[:, None]
    dt = F.softplus(dt) if softplus else dt
    h = u.new_zeros(sequences, A.shape[1], channels)
    outputs: list[Tensor] = [h] * length
    for t in range(length - 1, -1, -1) if reverse else range(length):
        step = dt[:, t, None]
        h = torch.exp(step * rates) * h + B[:, t, :, None] * (step * u[:, t, None])
        outputs[t] = (C[:, t, :, None] * h).sum(1)
    return torch.stack(outputs, 1) + skips[:, None] * u


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
    """Return (y, gu, gdelta, gA, gB, gC, gskip); arguments as in `scan_kernel.backward`."""
    repeats = u.shape[0] // A.shape[0]
    own = (each.repeat(repeats, *[1] * (each.dim() - 1)) for each in (A, skip, bias))
    rates, skips, biases = own
    tensors = [each.detach().requires_grad_() for each in (u, delta, rates, B, C, skips)]
    u, delta, rates, B, C, skips = tensors
    with torch.enable_grad():
        y = forward(u, delta, rates, B, C, skips, biases, softplus, reverse)
    return (y.detach(), *torch.autograd.grad(y, tensors, gy))
