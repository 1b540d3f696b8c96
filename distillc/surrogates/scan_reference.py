"""The selective scan in plain torch: for devices without a kernel. Slow, one step at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64


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
    rates, skips, biases = _repeated(u, A, skip, bias)
    dt = _step_sizes(delta, biases, softplus)
    h = torch.zeros_like(rates)
    outputs: list[Tensor] = [h] * u.shape[1]
    for t in _order(u.shape[1], reverse):
        h = _step(h, u, dt, rates, B, t)
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
    """Return (y, gu, gdelta, gA, gB, gC, gskip); arguments as in `scan_kernel.backward`.

    By hand, since autograd is off within an operator. As in the kernel, states are kept at the
    borders of chunks and computed again within one.
    """
    rates, skips, biases = _repeated(u, A, skip, bias)
    dt = _step_sizes(delta, biases, softplus)
    order = list(_order(u.shape[1], reverse))
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    y, gu, gdt, gB, gC = (torch.zeros_like(each) for each in (u, u, u, B, C))
    h = torch.zeros_like(rates)
    borders = []
    for chunk in chunks:
        borders.append(h)
        for t in chunk:
            h = _step(h, u, dt, rates, B, t)
            y[:, t] = (C[:, t, :, None] * h).sum(1)
    grad, gA = torch.zeros_like(rates), torch.zeros_like(rates)
    for chunk, border in zip(reversed(chunks), reversed(borders), strict=True):
        states = [border]
        for t in chunk:
            states.append(_step(states[-1], u, dt, rates, B, t))
        for index, t in reversed(list(enumerate(chunk))):
            step = dt[:, t, None]
            grad = grad + gy[:, t, None] * C[:, t, :, None]
            decay = torch.exp(step * rates)
            through = grad * decay * states[index]
            gC[:, t] = (gy[:, t, None] * states[index + 1]).sum(2)
            gB[:, t] = (grad * step * u[:, t, None]).sum(2)
            gu[:, t] = (grad * step * B[:, t, :, None]).sum(1)
            gdt[:, t] = (grad * B[:, t, :, None] * u[:, t, None] + through * rates).sum(1)
            gA += through * step
            grad = grad * decay
    if softplus:
        gdt = gdt * torch.sigmoid(delta + biases[:, None])
    skipped = skips[:, None]
    return y + skipped * u, gu + skipped * gy, gdt, gA, gB, gC, (gy * u).sum(1)


def _repeated(u: Tensor, *shared: Tensor) -> list[Tensor]:
    """Return (G, ...) tensors as (S, ...): sequence s uses group s % G."""
    return [each.repeat(u.shape[0] // each.shape[0], *[1] * (each.dim() - 1)) for each in shared]


def _step_sizes(delta: Tensor, biases: Tensor, softplus: bool) -> Tensor:
    dt = delta + biases[:, None]
    return F.softplus(dt) if softplus else dt


def _order(length: int, reverse: bool) -> Iterable[int]:
    return range(length - 1, -1, -1) if reverse else range(length)


def _step(h: Tensor, u: Tensor, dt: Tensor, rates: Tensor, B: Tensor, t: int) -> Tensor:
    step = dt[:, t, None]
    return torch.exp(step * rates) * h + B[:, t, :, None] * (step * u[:, t, None])
