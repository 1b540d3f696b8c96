"""Fourier transforms as torch 1.7 and before had them, which networks of that time call."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def rfft(x: Tensor, signal_ndim: int, normalized: bool = False, onesided: bool = True) -> Tensor:
    """Transform real numbers along the last axes.

    Args:
        x: (..., N1, ..., Nd).
        signal_ndim: How many axes, d.
        normalized: Whether numbers are divided by the root of how many they are.
        onesided: Whether the half of the last axis that repeats the other is left out.

    Returns:
        The same axes, and real and imaginary part as the last one.
    """
    transform = torch.fft.rfftn if onesided else torch.fft.fftn
    return torch.view_as_real(transform(x, dim=_last(signal_ndim), norm=_norm(normalized)))


def irfft(
    x: Tensor,
    signal_ndim: int,
    normalized: bool = False,
    onesided: bool = True,
    signal_sizes: Sequence[int] | None = None,
) -> Tensor:
    """Transform back what `rfft` returns; `signal_sizes` are the extents of the result."""
    y, axes, norm = torch.view_as_complex(x.contiguous()), _last(signal_ndim), _norm(normalized)
    if onesided:
        return torch.fft.irfftn(y, s=signal_sizes, dim=axes, norm=norm)
    return torch.fft.ifftn(y, s=signal_sizes, dim=axes, norm=norm).real


def ifft(x: Tensor, signal_ndim: int, normalized: bool = False) -> Tensor:
    """Transform complex numbers back, real and imaginary part in the last axis."""
    y = torch.view_as_complex(x.contiguous())
    return torch.view_as_real(torch.fft.ifftn(y, dim=_last(signal_ndim), norm=_norm(normalized)))


_OLD = {each.__name__: each for each in (rfft, irfft, ifft)}


def bring_back(error: Exception) -> bool:
    """Give torch its old transforms again, if that it lacks one is the error.

    From then on they are there in this process, for a network runs in many places.

    Returns:
        Whether they are there now and were not before: the network may run.
    """
    if not isinstance(error, AttributeError) or error.obj is not torch or error.name not in _OLD:
        return False
    for name, transform in _OLD.items():
        if not hasattr(torch, name):
            setattr(torch, name, transform)
    log.warning("torch.%s is of torch 1.7 and before: torch.fft computes the same", error.name)
    return True


def _last(count: int) -> tuple[int, ...]:
    return tuple(range(-count, 0))


def _norm(normalized: bool) -> str:
    return "ortho" if normalized else "backward"
