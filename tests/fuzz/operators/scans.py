"""The selective scan, and recurrences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillc.surrogates.selective_scan import selective_scan
from tests.fuzz.draw import Draw, Layer, described, operator


@operator("scan")
def scan(draw: Draw, x: Tensor) -> Layer:
    """The operator itself, with all its options."""
    y = x.flatten(2)
    channels = y.shape[1]
    states, groups = draw.some(1, 5), draw.divisor(channels)
    softplus, reverse, skip, gate = (draw.chance(0.5) for _ in range(4))
    tied, four = draw.chance(0.3), draw.chance(0.7)
    if not four:
        groups = 1

    def run(x: Tensor, w: Tensor, bc: Tensor, rates: Tensor, d: Tensor, bias: Tensor) -> Tensor:
        u = x.flatten(2)
        delta = torch.einsum("dc,bcl->bdl", w, u)
        delta = delta if softplus else torch.sigmoid(delta)
        b, c = torch.einsum("nc,bcl->bnl", bc, u).chunk(2, 1)
        if four:
            b, c = (each.unflatten(1, (groups, states)) for each in (b, c))
        A = -torch.exp(rates)
        if tied:
            A = -torch.arange(1, states + 1, dtype=x.dtype).expand(channels, states).contiguous()
        given = (u, delta, A, b, c, d if skip else None, u if gate else None)
        given = (*given, bias.abs() if skip else None, softplus, reverse)
        if x.dtype == torch.float64:
            return reference(*given)
        return selective_scan(*given)

    given = {"states": states, "groups": groups, "softplus": softplus, "reverse": reverse}
    given |= {"skip": skip, "gate": gate, "tied": tied}
    return Layer(
        described("selective_scan", given),
        run,
        draw.weight(channels, channels),
        draw.weight(2 * groups * states, channels),
        draw.normal(channels, states, scale=0.5),
        draw.weight(channels),
        draw.weight(channels),
    )


def reference(u, delta, A, B, C, D, z, bias, softplus, reverse):  # type: ignore[no-untyped-def]
    """Return what `selective_scan` returns, in any dtype: one step after the other."""
    if bias is not None:
        delta = delta + bias[:, None]
    delta = F.softplus(delta) if softplus else delta
    B, C = (each[:, None] if each.dim() == 3 else each for each in (B, C))
    B, C = (each.repeat_interleave(u.shape[1] // each.shape[1], 1) for each in (B, C))
    h = torch.zeros(*u.shape[:2], A.shape[1], dtype=u.dtype)
    places = range(u.shape[2])
    ys = {}
    for i in reversed(places) if reverse else places:
        h = torch.exp(delta[..., i, None] * A) * h + (delta * u)[..., i, None] * B[..., i]
        ys[i] = (h * C[..., i]).sum(-1)
    y = torch.stack([ys[i] for i in places], -1)
    y = y if D is None else y + D[:, None] * u
    return y if z is None else y * F.silu(z)


@operator("scan")
def four_ways(draw: Draw, x: Tensor) -> Layer:
    """Rows and columns, there and back: the scans of VMamba."""
    channels, states = x.shape[1], draw.some(1, 3)

    def run(x: Tensor, w: Tensor, bc: Tensor, rates: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for image in (x, x.transpose(2, 3)):
            u = image.flatten(2)
            delta = torch.sigmoid(torch.einsum("dc,bcl->bdl", w, u))
            b, c = torch.einsum("nc,bcl->bnl", bc, u).chunk(2, 1)
            for reverse in (False, True):
                given = (u, delta, -torch.exp(rates), b, c, None, None, None, False, reverse)
                run_scan = reference if x.dtype == torch.float64 else selective_scan
                y = run_scan(*given).view(image.shape)
                total = total + (y if image is x else y.transpose(2, 3))
        return total / 4

    return Layer(
        described("four scans", {"states": states}),
        run,
        draw.weight(channels, channels),
        draw.weight(2 * states, channels),
        draw.normal(channels, states, scale=0.5),
    )


@operator("scan")
def recurrence(draw: Draw, x: Tensor) -> Layer:
    """A GRU or LSTM over few tokens."""
    kind, both = draw.one("GRU", "LSTM", "RNN"), draw.chance(0.3)
    tokens = x.flatten(2).transpose(1, 2)
    if tokens.shape[1] > 5:
        raise ValueError("too many steps")
    width = draw.some(1, 4)
    layer = getattr(torch.nn, kind)(tokens.shape[2], width, batch_first=True, bidirectional=both)
    names = [name for name, _ in layer.named_parameters()]
    weights = [draw.weight(*each.shape) for each in layer.parameters()]
    for each in layer.parameters():
        each.requires_grad_(False)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        named = dict(zip(names, weights, strict=True))
        y: Tensor = torch.func.functional_call(layer, named, (tokens,))[0]
        return y

    return Layer(described(kind, {"width": width, "both ways": both}), run, *weights)
