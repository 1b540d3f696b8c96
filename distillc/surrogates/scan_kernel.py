"""The compiled CPU kernel of the selective scan, for training.

`scan_kernel.c` is compiled by zig (a dependency) on first use and kept in the user's cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from distillc.errors import LoweringError
from distillc.sealed import cached_file
from distillc.zig import HINT, run_zig

SOURCE = Path(__file__).with_name("scan_kernel.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")


@cache
def library() -> ctypes.CDLL:
    """Return the compiled kernel.

    Raises:
        LoweringError: It cannot be compiled.
        StorageError: It cannot be kept.
        OSError: It cannot be loaded.
    """

    def build(temporary: Path) -> None:
        if reason := run_zig("cc", *FLAGS, "-o", temporary, SOURCE):
            raise LoweringError(
                "the training kernel of the selective scan cannot be compiled",
                where=reason,
                hint=HINT,
            )

    key = SOURCE.read_bytes() + " ".join((*FLAGS, *_cpu())).encode()
    loaded = ctypes.CDLL(str(cached_file("scan_kernel.so", key, build)))
    for function in (loaded.scan_forward, loaded.scan_backward):
        function.restype = ctypes.c_int
    return loaded


def _cpu() -> tuple[str, ...]:
    """Name this CPU, since the kernel is compiled for it and a home folder may be shared."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return ()
    lines = info.read_text().splitlines()
    return tuple(sorted({line for line in lines if line.startswith(("flags", "Features"))}))


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _each_sequence(count: int, run: Callable[[int], int]) -> None:
    """Call `run` for every sequence, in torch's number of threads (the calls drop the GIL)."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if any(pool.map(run, range(count))):
            raise MemoryError("no memory for the states of the selective scan")


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
        return kernel.scan_forward(*map(_pointer, tensors), *sizes)

    _each_sequence(sequences, run)
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
        return kernel.scan_backward(*map(_pointer, (*inputs, *outputs)), *sizes)

    _each_sequence(sequences, run)
    return y, gu, gdelta, gA, gB, gC, gskip
