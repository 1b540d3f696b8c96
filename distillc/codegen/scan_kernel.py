# mypy: disable-error-code="valid-type,no-untyped-def"
"""The selective scan as a TIR kernel: channels in vector lanes, states in registers.

Each tile of channels walks over the positions once; decay, skip connection and sum over states
happen in registers. Tiles run in parallel. Positions come in runs that are copied to a small local
buffer first: channels lie far apart in memory, often by a power of two, and read one position at a
time they would evict each other from the first-level cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm import tirx
from tvm.script import tirx as T

from distillc.targets.base import Target

# Operator pattern 8 is Relax's "never fuse this".
ATTRIBUTES = {"distillc.scheduled": "selective_scan", "op_pattern": 8, "tirx.noalias": True}

RUN = 32
"""Positions copied at a time: a few vectors of each channel, 6 KiB of a 16-channel tile."""


def tile_width(channels: int, target: Target) -> int:
    """Return how many channels share a vector: all lanes, or fewer to feed every thread.

    Args:
        channels: Channels of one group.
        target: What it is compiled for.
    """
    width = math.gcd(channels, target.lanes)
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
) -> tirx.PrimFunc:
    """Return the kernel (u, delta, A, B, C, D, delta_bias) -> y for static shapes.

    Operands as in `torch.ops.distillc.selective_scan`, with B and C (batch, groups, N, L), and D
    and delta_bias given; all float32.
    """
    share = channels // groups
    width = tile_width(share, target)
    tiles = channels // width
    run = next(each for each in range(min(RUN, length), 0, -1) if length % each == 0)
    runs = length // run
    step_size: Callable[[tirx.PrimExpr], tirx.PrimExpr] = _softplus if softplus else _same

    def block(index: tirx.PrimExpr) -> tirx.PrimExpr:
        return (runs - 1 - index) * run if reverse else index * run

    def position(step: tirx.PrimExpr) -> tirx.PrimExpr:
        return run - 1 - step if reverse else step

    # fmt: off
    @T.prim_func(private=True, s_tir=True)
    def selective_scan(
        u: T.Buffer((batch, channels, length), "float32"),
        delta: T.Buffer((batch, channels, length), "float32"),
        A: T.Buffer((channels, states), "float32"),
        B: T.Buffer((batch, groups, states, length), "float32"),
        C: T.Buffer((batch, groups, states, length), "float32"),
        D: T.Buffer((channels,), "float32"),
        bias: T.Buffer((channels,), "float32"),
        y: T.Buffer((batch, channels, length), "float32"),
    ):
        T.func_attr(ATTRIBUTES)
        for tile in T.parallel(batch * tiles):
            with T.sblock("scan"):
                h = T.sblock_alloc_buffer((states * width,), "float32", scope="local")
                rate = T.sblock_alloc_buffer((states * width,), "float32", scope="local")
                dt = T.sblock_alloc_buffer((width,), "float32", scope="local")
                x = T.sblock_alloc_buffer((width,), "float32", scope="local")
                total = T.sblock_alloc_buffer((width,), "float32", scope="local")
                u_run = T.sblock_alloc_buffer((width * run,), "float32", scope="local")
                dt_run = T.sblock_alloc_buffer((width * run,), "float32", scope="local")
                y_run = T.sblock_alloc_buffer((width * run,), "float32", scope="local")
                for n in T.unroll(states):
                    for w in T.vectorized(width):
                        h[n * width + w] = T.float32(0)
                        rate[n * width + w] = A[tile % tiles * width + w, n]
                for index in T.serial(runs):
                    for w in T.serial(width):
                        for t in T.vectorized(run):
                            u_run[w * run + t] = u[
                                tile // tiles, tile % tiles * width + w, block(index) + t
                            ]
                        for t in T.vectorized(run):
                            dt_run[w * run + t] = step_size(
                                delta[tile // tiles, tile % tiles * width + w, block(index) + t]
                                + bias[tile % tiles * width + w]
                            )
                    for step in T.serial(run):
                        for w in T.vectorized(width):
                            dt[w] = dt_run[w * run + position(step)]
                        for w in T.vectorized(width):
                            x[w] = u_run[w * run + position(step)]
                        for w in T.vectorized(width):
                            total[w] = D[tile % tiles * width + w] * x[w]
                        for n in T.unroll(states):
                            for w in T.vectorized(width):
                                h[n * width + w] = (
                                    T.exp(dt[w] * rate[n * width + w]) * h[n * width + w]
                                    + dt[w] * x[w] * B[
                                        tile // tiles,
                                        tile % tiles * width // share,
                                        n,
                                        block(index) + position(step),
                                    ]
                                )
                            for w in T.vectorized(width):
                                total[w] = total[w] + h[n * width + w] * C[
                                    tile // tiles,
                                    tile % tiles * width // share,
                                    n,
                                    block(index) + position(step),
                                ]
                        for w in T.vectorized(width):
                            y_run[w * run + position(step)] = total[w]
                    for w in T.serial(width):
                        for t in T.vectorized(run):
                            y[
                                tile // tiles, tile % tiles * width + w, block(index) + t
                            ] = y_run[w * run + t]
    # fmt: on
    return selective_scan


def _softplus(x: tirx.PrimExpr) -> tirx.PrimExpr:
    """log(1 + exp(x)) without overflow: max(x, 0) + log(1 + exp(-|x|))."""
    return T.max(x, T.float32(0)) + T.log(T.float32(1) + T.exp(-T.abs(x)))


def _same(x: tirx.PrimExpr) -> tirx.PrimExpr:
    return x
