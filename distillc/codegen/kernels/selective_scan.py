# mypy: disable-error-code="no-untyped-call"
"""The selective scan as a TIR kernel: channels in vector lanes, states in registers.

Each tile of channels walks over the positions once, tiles run in parallel. As many positions as
there are lanes form a run:
1. Each channel's run is loaded as a vector, for positions are contiguous, and the square of
   vectors is transposed in registers.
2. Step sizes of all positions, some side by side; they do not depend on each other.
3. Position by position: decay, input and output of every state, skip connection. Where the rates of
   a channel's states are equal or multiples, one exponential serves all of them.
4. The outputs are transposed back and stored.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from distillc.codegen.kernels import vectors
from distillc.codegen.kernels.builder import begin_kernel, operand, with_sizes
from distillc.codegen.kernels.vectors import (
    LOG2_E,
    Powers,
    Vectors,
    broadcast,
    constant,
    exp2,
    keep,
    lane_index,
    transpose,
)
from distillc.codegen.knobs import Knobs
from distillc.targets.base import Target

TOGETHER = 4
"""Positions whose step sizes are computed side by side: a multiply-add takes about four cycles."""


class Rates(IntEnum):
    """How the decay rates of a channel's states, A (D, N), hang together."""

    OWN = 0
    EQUAL = 1
    """A[d, n] = A[d, 0]: Mamba-2's scalar A (arXiv 2405.21060, section 7)."""
    MULTIPLES = 2
    """A[d, n] = (n + 1) A[d, 0], as Mamba's rates start (arXiv 2312.00752, section 3.6)."""

    @classmethod
    def of(cls, A: np.ndarray) -> Rates:
        """Return what these rates are, A (D, N) float32; multiples may be rounded."""
        multiples = np.arange(1, A.shape[1] + 1)
        if np.array_equal(A, np.broadcast_to(A[:, :1], A.shape)):
            return cls.EQUAL
        return cls.MULTIPLES if np.allclose(A, A[:, :1] * multiples, rtol=1e-6, atol=0) else cls.OWN


def tile_width(channels: int, length: int, target: Target) -> int:
    """Return how many channels share a vector: all lanes, or fewer to feed every thread.

    Args:
        channels: Channels of one group.
        length: Positions; a run of as many as there are lanes must divide them.
        target: What it is compiled for.
    """
    width = math.gcd(channels, length, target.lanes)
    while width > 4 and channels // width < target.threads:
        width //= 2
    return width


def selective_scan_kernel(
    batch: int,
    channels: int,
    length: int,
    states: int,
    groups: int,
    softplus: bool,
    reverse: bool,
    target: Target,
    rates: Rates = Rates.OWN,
    knobs: Knobs | None = None,
) -> tirx.PrimFunc:
    """Return the kernel (u, delta, A, B, C, D, delta_bias) -> y for static shapes.

    Operands as in `torch.ops.distillc.selective_scan`, with B and C (batch, groups, N, L), and D
    and delta_bias given; all float32. `rates` says what A is like. Knob: `width`, the channels of a
    tile.
    """
    share = channels // groups
    options = [d for d in (4, 8, 16) if math.gcd(share, length, target.lanes) % d == 0]
    width = (knobs or Knobs()).choose(
        "width", options, tile_width(share, length, target), seen=False
    )
    tiles = channels // width
    runs = length // width
    order = range(width - 1, -1, -1) if reverse else range(width)
    with IRBuilder() as builder, T.prim_func(private=True, s_tir=True):
        begin_kernel("selective_scan")
        u = operand("u", "float32", batch, channels, length)
        delta = operand("delta", "float32", batch, channels, length)
        A = operand("A", "float32", channels, states)
        B = operand("B", "float32", batch, groups, states, length)
        C = operand("C", "float32", batch, groups, states, length)
        D = operand("D", "float32", channels)
        bias = operand("delta_bias", "float32", channels)
        y = operand("y", "float32", batch, channels, length)
        with T.parallel(batch * tiles) as tile, T.sblock("scan"):
            T.reads()
            T.writes()
            image, first = tile // tiles, tile % tiles * width
            own = lane_index(first, width)
            h = Vectors(states, width)
            for group in h.groups():
                for n in group:
                    h[n] = constant(0.0, width)
            rate = Vectors(1 if rates else states, width)
            for group in rate.groups():
                for n in group:
                    with T.unroll(width) as w:
                        rate.set_lane(n, w, A[first + w, n] * T.float32(LOG2_E))
            with T.serial(runs) as index:
                begin = (runs - 1 - index if reverse else index) * width
                here = lane_index(begin, width)
                us, deltas = (
                    transpose([keep(each[image, first + w, here]) for w in range(width)])
                    for each in (u, delta)
                )
                sizes, inputs, outputs = {}, {}, {}
                for start in range(0, width, TOGETHER):
                    some = order[start : start + TOGETHER]
                    plain = [keep(deltas[t] + bias[own]) for t in some]
                    found = vectors.softplus(plain) if softplus else plain
                    for t, size in zip(some, found, strict=True):
                        sizes[t] = size
                        inputs[t] = keep(size * us[t])
                for t in order:
                    total = Vectors(1, width)
                    total[0] = D[own] * us[t]
                    shared = exp2([sizes[t] * rate[0]]) if rates else []
                    powers = Powers(shared[0]) if rates is Rates.MULTIPLES else None
                    for group in h.groups():
                        decays = shared * len(group)
                        if powers:
                            decays = powers.next(len(group))
                        elif not rates:
                            decays = exp2([sizes[t] * rate[n] for n in group])
                        for n, decay in zip(group, decays, strict=True):
                            into, out = (
                                broadcast(each[image, first // share, n, begin + t], width)
                                for each in (B, C)
                            )
                            h[n] = decay * h[n] + inputs[t] * into
                            total[0] = total[0] + h[n] * out
                    outputs[t] = total[0]
                for w, row in enumerate(transpose([outputs[t] for t in range(width)])):
                    T.buffer_store(y, row, [image, first + w, here])
    flags = (int(softplus), int(reverse), int(rates))
    return with_sizes(builder.get(), (batch, channels, length, states, groups, *flags))


def rebuild_selective_scan(sizes: tuple[int, ...], target: Target, knobs: Knobs) -> tirx.PrimFunc:
    """Return a scan as `selective_scan_kernel` builds it, its knobs answered.

    Args:
        sizes: What `built_from` returns.
        target: What it is compiled for.
        knobs: Answers its choices.
    """
    batch, channels, length, states, groups, softplus, reverse, rates = sizes
    return selective_scan_kernel(
        *(batch, channels, length, states, groups),
        *(bool(softplus), bool(reverse), target, Rates(rates), knobs),
    )
