"""`torch.ops.distillc.axial_scan`: heads of channels scanned along the axes of an image.

The recurrence is Mamba-2's with a scalar decay a head (arXiv 2405.21060, section 7). Every row or
column is a sequence of its own, so a scan means the same at every size of the image. On a CPU a
compiled kernel runs it, elsewhere plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from distillc.surrogates import axial_kernel
from distillc.surrogates.native import has_kernels
from distillc.surrogates.operands import check_operands, unfit

_NAME = "axial_scan"
DIRECTIONS = ("down", "right", "up", "left")
"""Where a scan goes. Down and up follow columns, right and left follow rows."""


def direction_codes(directions: str) -> tuple[int, ...]:
    """Return the places in `DIRECTIONS` of comma-separated names, as the kernels know them."""
    return tuple(map(DIRECTIONS.index, directions.split(",")))


@torch.library.custom_op("distillc::axial_scan", mutates_args=())
def axial_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    directions: str,
) -> Tensor:
    """Scan the lines of an image: h = exp(dt A) h + dt B u,  y = C h + D u,  dt = softplus(delta).

    Args:
        u: Input, (b, d, h, w) float32: g heads of d / g neighbouring channels.
        delta: Step sizes before bias and softplus, (b, g, h, w) float32.
        A: Decay rates, (g,) float32, negative.
        B: Input weights, (b, m, n, h, w) float32, n states; head i uses group i m // g.
        C: Output weights, shaped as `B`.
        D: Skip weights, (d,) float32.
        delta_bias: Added to `delta`, (g,) float32.
        directions: r comma-separated names out of `DIRECTIONS`, where r divides g: the first g / r
            heads go the first way, and so on.

    Returns:
        (b, d, h, w) float32, channels innermost in memory.

    Raises:
        UsageError: An operand has another shape, type or device, or a direction is unknown.
    """
    _check(u, delta, A, B, C, D, delta_bias, directions)
    if not _is_compiled(u):
        return _channels_last(scan_in_torch(u, delta, A, B, C, D, delta_bias, directions))
    packed = _packed(u, delta, A, B, C, D, delta_bias)
    return axial_kernel.forward(*packed, direction_codes(directions))


@axial_scan.register_fake
def _(u: Tensor, *operands: Any) -> Tensor:
    _check(u, *operands)
    return torch.empty_like(u, memory_format=torch.channels_last)


@torch.library.custom_op("distillc::axial_scan_backward", mutates_args=())
def _backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    directions: str,
) -> list[Tensor]:
    """Return the gradients of u, delta, A, B, C, D."""
    _check(u, delta, A, B, C, D, delta_bias, directions, grad)
    packed = _packed(u, delta, A, B, C, D, delta_bias)
    return axial_kernel.backward(*packed, direction_codes(directions), _channels_last(grad))


@_backward.register_fake
def _(grad: Tensor, *operands: Any) -> list[Tensor]:
    u, delta, A, B, C, D = operands[:6]
    wide = [torch.empty_like(each, memory_format=torch.channels_last) for each in (u, delta)]
    narrow = [_like_packed(each) for each in (B, C)]
    return [*wide, torch.empty_like(A), *narrow, torch.empty_like(D)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-1])
    ctx.directions = inputs[-1]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    operands = ctx.saved_tensors
    if _is_compiled(grad):
        found = torch.ops.distillc.axial_scan_backward(grad, *operands, ctx.directions)
        return *found, found[1].sum((0, 2, 3)), None
    with torch.enable_grad():
        apart: list[Any] = [each.detach().requires_grad_() for each in operands]
        y = scan_in_torch(*[*apart, ctx.directions])
    return *torch.autograd.grad(y, apart, grad), None


axial_scan.register_autograd(_differentiate, setup_context=_save)


@register_flop_formula(torch.ops.distillc.axial_scan)
def _flops(u_shape: Any, delta: Any, A: Any, B_shape: Any, *args: Any, **kwargs: Any) -> int:
    """Count the recurrence's three multiply-accumulates per (b, d, h, w, n)."""
    batch, channels, height, width = u_shape
    return 2 * 3 * batch * channels * height * width * int(B_shape[2])


def scan_in_torch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    directions: str,
) -> Tensor:
    """Compute `axial_scan` by plain torch operators, which differentiate; one step at a time."""
    heads, groups = len(A), B.shape[1]
    names = directions.split(",")
    share = heads // len(names)
    dt = F.softplus(delta + delta_bias[:, None, None])
    found = []
    for index, name in enumerate(names):
        own = slice(index * share, (index + 1) * share)
        group = [head * groups // heads for head in range(heads)[own]]
        axis = -2 if name in ("down", "up") else -1
        x = u.unflatten(1, (heads, -1))[:, own]
        steps = (dt[:, own], x, B[:, group], C[:, group])  # (b, g, [d or n,] h, w)
        apart = [list(each.unbind(axis)) for each in steps]
        order = range(x.shape[axis])
        h = x.new_zeros(1)
        outputs: list[Tensor] = [h] * len(order)
        for t in order if name in ("down", "right") else reversed(order):
            step, value, into, out = (each[t] for each in apart)
            decay = torch.exp(step * A[own, None])[:, :, None, None]
            h = decay * h + (step[:, :, None] * into)[:, :, None] * value[:, :, :, None]
            outputs[t] = (out[:, :, None] * h).sum(3)
        found.append(torch.stack(outputs, axis))
    return torch.cat(found, 1).flatten(1, 2) + D[:, None, None] * u


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    directions: str,
    grad: Tensor | None = None,
) -> None:
    """Check the operands."""
    if u.dim() != 4 or A.dim() != 1 or B.dim() != 5:
        shapes = ", ".join(str(tuple(each.shape)) for each in (u, A, B))
        raise unfit(_NAME, f"u must be (b, d, h, w), A (g,) and B (b, m, n, h, w), not {shapes}")
    batch, channels, height, width = u.shape
    heads, weights = A.shape[0], (batch, *B.shape[1:3], height, width)
    names = directions.split(",")
    if unknown := [name for name in names if name not in DIRECTIONS]:
        raise unfit(
            _NAME, f"no direction is called {unknown[0]!r}, they are {', '.join(DIRECTIONS)}"
        )
    if min(B.shape[1:3]) < 1:
        raise unfit(_NAME, f"B has {B.shape[1]} groups of {B.shape[2]} states")
    if heads < 1 or channels % heads or heads % len(names):
        raise unfit(_NAME, f"{channels} channels, {heads} heads and {len(names)} directions")
    operands = (
        ("delta", delta, (batch, heads, height, width)),
        ("A", A, (heads,)),
        ("B", B, weights),
        ("C", C, weights),
        ("D", D, (channels,)),
        ("delta_bias", delta_bias, (heads,)),
        ("u", u, u.shape),
        ("grad", grad, u.shape),
    )
    check_operands(_NAME, u.device, operands)


def _is_compiled(u: Tensor) -> bool:
    return u.device.type == "cpu" and has_kernels()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _like_packed(weights: Tensor) -> Tensor:
    """Return an empty (b, m, n, h, w) tensor laid out as (b, h, w, m, n)."""
    batch, groups, states, height, width = weights.shape
    return weights.new_empty(batch, height, width, groups, states).permute(0, 3, 4, 1, 2)


def _packed(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Bring the operands to the kernel's layout, channels innermost."""
    into, out = (_like_packed(each).copy_(each) for each in (B, C))
    rates, skip, bias = (each.contiguous() for each in (A, D, bias))
    return _channels_last(u), _channels_last(delta), rates, into, out, skip, bias
