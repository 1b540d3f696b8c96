"""`torch.ops.distillc.selective_scan`: the state-space recurrence as one operator.

Semantics are those of mamba-ssm's `selective_scan_ref` (Mamba, arXiv 2312.00752, algorithm 2),
with a direction added. On a CPU a compiled kernel runs it; on CUDA mamba-ssm's kernel where it is
installed; elsewhere, and where the kernel cannot be compiled, plain torch. No path holds a
(B, D, L, N) tensor at image size.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from distillc.surrogates import scan_kernel, scan_reference
from distillc.surrogates.native import has_kernels
from distillc.surrogates.operands import check_operands, unfit

_NAME = "selective_scan"


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
        (B, D, L) float32, channels innermost in memory.

    Raises:
        UsageError: An operand has another shape, type or device.
    """
    _check(u, delta, A, B, C, D, z, delta_bias)
    if u.is_cuda and find_spec("selective_scan_cuda"):  # mamba-ssm, built with its kernels
        return _mamba_ssm(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    packed = _pack(u, delta, A, B, C, D, delta_bias)
    y = _unpack(_kernel(u).forward(*packed, delta_softplus, reverse), u)
    return y if z is None else y * F.silu(z)


@selective_scan.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    _check(u, delta, A, B, C, D, z, delta_bias)
    return _channels_innermost(u)


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
    _check(u, delta, A, B, C, D, z, delta_bias, grad)
    packed = _pack(u, delta, A, B, C, D, delta_bias)
    groups, states = packed[2].shape[:2]
    gate = None if z is None else torch.sigmoid(z)
    gy = grad if z is None or gate is None else grad * z * gate
    y, gu, gdelta, gA, gB, gC, gskip = _kernel(u).backward(
        *packed, delta_softplus, reverse, _pack_channels(gy, groups)
    )
    y, gu, gdelta = (_unpack(each, u) for each in (y, gu, gdelta))
    gz = u.new_empty(0)
    if z is not None and gate is not None:
        gz = _channels_innermost(u).copy_(grad * y * gate * (1 + z * (1 - gate)))
    gA = gA.reshape(-1, groups, states, gA.shape[-1]).sum(0).transpose(1, 2).reshape(A.shape)
    gB, gC = (each.transpose(1, 2).reshape(B.shape) for each in (gB, gC))
    gD = u.new_empty(0) if D is None else gskip.reshape(-1, D.shape[0]).sum(0)
    return [gu, gdelta, gA.contiguous(), gB.contiguous(), gC.contiguous(), gD, gz]


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
        return u.new_empty(0 if tensor is None else tensor.shape)

    wide = [_channels_innermost(each) for each in (u, delta)]
    gz = u.new_empty(0) if z is None else _channels_innermost(z)
    return [*wide, like(A), like(B), like(C), like(D), gz]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:8])
    ctx.flags = inputs[8:]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gu, gdelta, gA, gB, gC, gD, gz = torch.ops.distillc.selective_scan_backward(
        grad, *tensors, *ctx.flags
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


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    grad: Tensor | None = None,
) -> None:
    """Check the operands."""
    if u.dim() != 3 or A.dim() != 2:
        raise unfit(
            _NAME, f"u must be (B, D, L) and A (D, N), not {tuple(u.shape)}, {tuple(A.shape)}"
        )
    batch, channels, length = u.shape
    states = A.shape[1]
    groups = B.shape[1] if B.dim() == 4 else 1
    if groups < 1 or channels % groups:
        raise unfit(_NAME, f"{channels} channels do not divide into {groups} groups")
    weights = (batch, groups, states, length) if B.dim() == 4 else (batch, states, length)
    operands = (
        ("u", u, u.shape),
        ("delta", delta, u.shape),
        ("A", A, (channels, states)),
        ("B", B, weights),
        ("C", C, weights),
        ("D", D, (channels,)),
        ("z", z, u.shape),
        ("delta_bias", delta_bias, (channels,)),
        ("grad", grad, u.shape),
    )
    check_operands(_NAME, u.device, operands)


def _channels_innermost(like: Tensor) -> Tensor:
    """Return an empty (B, D, L) tensor laid out as (B, L, D), as the kernels write it."""
    batch, channels, length = like.shape
    return like.new_empty(batch, length, channels).transpose(1, 2)


def _pack_channels(x: Tensor, groups: int) -> Tensor:
    """(B, D, L) -> (B * G, L, D / G), channels innermost."""
    batch, channels, length = x.shape
    return x.reshape(batch * groups, channels // groups, length).transpose(1, 2).contiguous()


def _pack(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    skip: Tensor | None,
    bias: Tensor | None,
) -> tuple[Tensor, ...]:
    """Bring the operands to the kernel's layout; each group becomes a sequence of its own."""
    groups = B.shape[1] if B.dim() == 4 else 1
    states, length = B.shape[-2:]
    rates = A.reshape(groups, -1, states).transpose(1, 2).contiguous()
    weights = (each.reshape(-1, states, length).transpose(1, 2).contiguous() for each in (B, C))
    vectors = (
        u.new_zeros(groups, u.shape[1] // groups)
        if each is None
        else each.reshape(groups, -1).contiguous()
        for each in (skip, bias)
    )
    return _pack_channels(u, groups), _pack_channels(delta, groups), rates, *weights, *vectors


def _unpack(y: Tensor, like: Tensor) -> Tensor:
    """(B * G, L, D / G) -> (B, D, L), channels innermost."""
    if y.shape[0] == like.shape[0]:
        return y.transpose(1, 2)
    return _channels_innermost(like).copy_(y.transpose(1, 2).reshape(like.shape))


def _kernel(u: Tensor) -> Any:
    """Return what computes on this tensor's device: the compiled kernel, or plain torch."""
    return scan_kernel if u.device.type == "cpu" and has_kernels() else scan_reference


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

    if reverse:
        u, delta, B, C = (each.flip(-1) for each in (u, delta, B, C))
        z = None if z is None else z.flip(-1)
    y = selective_scan_fn(
        u, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=delta_softplus
    )
    return y.flip(-1) if reverse else y
