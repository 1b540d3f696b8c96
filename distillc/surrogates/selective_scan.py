"""`torch.ops.distillc.selective_scan`: the state-space recurrence as one operator.

Semantics are those of mamba-ssm's `selective_scan_ref` (Mamba, arXiv 2312.00752, algorithm 2),
with a direction added. On a CPU a compiled kernel runs it; on CUDA mamba-ssm's kernel where it is
installed; elsewhere plain torch. No path holds a (B, D, L, N) tensor at image size.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from distillc.surrogates import scan_kernel


@torch.library.custom_op("distillc::selective_scan", mutates_args=())
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """Scan each channel of each sequence: h = exp(dt A) h + dt B u,  y = C h + D u,  y *= silu(z).

    Args:
        u: Input, (B, D, L) float32.
        delta: Step sizes before bias and softplus, (B, D, L) float32.
        A: Decay rates, (D, N) float32, negative.
        B: Input weights, (B, N, L) or (B, G, N, L) float32; channel d uses group d // (D / G).
        C: Output weights, shaped as `B`.
        D: Skip weights, (D,) float32.
        z: Gate, (B, D, L) float32.
        delta_bias: Added to `delta`, (D,) float32.
        delta_softplus: Whether step sizes pass through softplus.
        reverse: Scan from the last position to the first.

    Returns:
        (B, D, L) float32.
    """
    if u.is_cuda and find_spec("mamba_ssm"):
        return _mamba_ssm(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    dt = _step_sizes(delta, delta_bias, delta_softplus)
    y = _unpack(_forward(*_pack(u, dt, A, B, C), reverse), u)
    if D is not None:
        y = y + D[:, None] * u
    return y if z is None else y * F.silu(z)


@selective_scan.register_fake
def _(u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@torch.library.custom_op("distillc::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Return the gradients of u, delta, A, B, C, D, z; empty ones for what was not given."""
    dt = _step_sizes(delta, delta_bias, delta_softplus)
    gate = None if z is None else torch.sigmoid(z)
    gy = grad if z is None or gate is None else grad * z * gate
    packed = _pack(u, dt, A, B, C)
    y, gu, gdt, gA, gB, gC = _backward(*packed, _pack_channels(gy, packed[2].shape[0]), reverse)
    y, gu, gdt = (_unpack(each, u) for each in (y, gu, gdt))
    gD = gz = u.new_empty(0)
    if D is not None:
        y = y + D[:, None] * u
        gu = gu + D[:, None] * gy
        gD = (gy * u).sum((0, 2))
    if z is not None and gate is not None:
        gz = grad * y * gate * (1 + z * (1 - gate))
    if delta_softplus:
        # d softplus(x) = sigmoid(x) = 1 - exp(-softplus(x))
        gdt = gdt * -torch.expm1(-dt)
    groups, states = packed[2].shape[:2]
    gA = gA.reshape(-1, groups, states, gA.shape[-1]).sum(0).transpose(1, 2).reshape(A.shape)
    gB, gC = (each.transpose(1, 2).reshape(B.shape) for each in (gB, gC))
    return [gu, gdt, gA.contiguous(), gB.contiguous(), gC.contiguous(), gD, gz]


@selective_scan_backward.register_fake
def _(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    *args: Any,
) -> list[Tensor]:
    def like(tensor: Tensor | None) -> Tensor:
        return u.new_empty(0) if tensor is None else torch.empty(tensor.shape, device=u.device)

    return [like(each) for each in (u, delta, A, B, C, D, z)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.flags = inputs[8:]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gu, gdelta, gA, gB, gC, gD, gz = torch.ops.distillc.selective_scan_backward(
        grad.contiguous(), *tensors, *ctx.flags
    )
    skip, gate, bias = tensors[5:]
    return (
        gu,
        gdelta,
        gA,
        gB,
        gC,
        None if skip is None else gD,
        None if gate is None else gz,
        None if bias is None else gdelta.sum((0, 2)),
        None,
        None,
    )


selective_scan.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.distillc.selective_scan)
def _flops(u_shape: Any, delta_shape: Any, A_shape: Any, *args: Any, **kwargs: Any) -> int:
    """Count the recurrence's three multiply-accumulates per (b, l, d, n): decay, input, output."""
    batch, _, length = u_shape
    return 2 * 3 * batch * length * A_shape[0] * A_shape[1]


def _step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    dt = delta if bias is None else delta + bias[:, None]
    return F.softplus(dt) if softplus else dt


def _pack_channels(x: Tensor, groups: int) -> Tensor:
    """(B, D, L) -> (B * G, L, D / G), channels innermost."""
    batch, channels, length = x.shape
    return x.reshape(batch * groups, channels // groups, length).transpose(1, 2).contiguous()


def _pack(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """Bring the operands to the kernel's layout; each group becomes a sequence of its own."""
    groups = B.shape[1] if B.dim() == 4 else 1
    states, length = B.shape[-2:]
    rates = A.reshape(groups, -1, states).transpose(1, 2).contiguous()
    weights = (each.reshape(-1, states, length).transpose(1, 2).contiguous() for each in (B, C))
    return _pack_channels(u, groups), _pack_channels(dt, groups), rates, *weights


def _unpack(y: Tensor, like: Tensor) -> Tensor:
    """(B * G, L, D / G) -> (B, D, L)."""
    return y.transpose(1, 2).reshape(like.shape).contiguous()


def _forward(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool) -> Tensor:
    if u.device.type == "cpu":
        return scan_kernel.forward(u, dt, A, B, C, reverse)
    return _torch_forward(u, dt, A, B, C, reverse)


def _backward(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, gy: Tensor, reverse: bool
) -> tuple[Tensor, ...]:
    if u.device.type == "cpu":
        return scan_kernel.backward(u, dt, A, B, C, gy, reverse)
    per_sequence = A.repeat(u.shape[0] // A.shape[0], 1, 1)
    inputs = [each.detach().requires_grad_() for each in (u, dt, per_sequence, B, C)]
    with torch.enable_grad():
        y = _torch_forward(*inputs, reverse)
    return (y.detach(), *torch.autograd.grad(y, inputs, gy))


def _torch_forward(u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool) -> Tensor:
    """`scan_kernel.forward` in plain torch, one step of all sequences at a time."""
    sequences, length, channels = u.shape
    rates = A.repeat(sequences // A.shape[0], 1, 1)
    h = u.new_zeros(sequences, A.shape[1], channels)
    outputs: list[Tensor] = [h] * length
    for t in range(length - 1, -1, -1) if reverse else range(length):
        step = dt[:, t, None]
        h = torch.exp(step * rates) * h + B[:, t, :, None] * (step * u[:, t, None])
        outputs[t] = (C[:, t, :, None] * h).sum(1)
    return torch.stack(outputs, 1)


def _mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    sequences = [u, delta, B, C, z]
    if reverse:
        sequences = [None if each is None else each.flip(-1) for each in sequences]
    u, delta, B, C, z = sequences
    y = selective_scan_fn(
        u, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus
    )
    return y.flip(-1) if reverse else y
