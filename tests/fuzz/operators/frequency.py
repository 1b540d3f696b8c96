"""Complex numbers and Fourier transforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.draw import Draw, Layer, described, operator


@operator("frequency")
def spectrum(draw: Draw, x: Tensor) -> Layer:
    """To frequencies, a product there, and back."""
    size = tuple(x.shape[-2:])
    norm = draw.one("backward", "ortho", "forward")
    way = draw.one("gain", "complex", "modulus", "parts", "shift", "conj")

    def run(x: Tensor, gain: Tensor, other: Tensor) -> Tensor:
        f = torch.fft.rfft2(x, norm=norm)
        if way == "gain":
            f = f * gain
        elif way == "complex":
            f = f * torch.complex(gain, other)
        elif way == "modulus":
            f = torch.polar(f.abs() + gain.abs(), other.expand(f.shape).contiguous())
        elif way == "parts":
            f = torch.complex(torch.relu(f.real), f.imag * gain)
        elif way == "shift":
            f = torch.fft.ifftshift(torch.fft.fftshift(f, (-2, -1)) * gain, (-2, -1))
        else:
            f = f * f.conj() / (f.real.square() + f.imag.square() + 1)
        return torch.fft.irfft2(f, s=size, norm=norm)

    bins = (size[0], size[1] // 2 + 1)
    return Layer(
        described("spectrum", {"way": way, "norm": norm}),
        run,
        draw.near_one(*bins),
        draw.normal(*bins, scale=0.3),
    )


@operator("frequency")
def magnitude(draw: Draw, x: Tensor) -> Layer:
    way, axis = draw.one("abs", "power", "real", "imag", "view_as_real"), draw.axis(x)

    def run(x: Tensor) -> Tensor:
        f = torch.fft.fft(x, dim=axis, norm="ortho")
        if way == "view_as_real":
            return torch.view_as_real(f).flatten(-2)
        if way == "power":
            return torch.sqrt(f.real**2 + f.imag**2 + 0.01)
        return f.abs() if way == "abs" else getattr(f, way)

    return Layer(described("fft", {"way": way, "axis": axis}), run)


@operator("frequency")
def cross_spectrum(draw: Draw, x: Tensor) -> Layer:
    """FFTformer's attention: a product of spectra of patches."""
    patch = draw.one(*(e for e in (1, 2, 4, 8) if not (x.shape[2] % e or x.shape[3] % e)))

    def run(x: Tensor, weight: Tensor) -> Tensor:
        q, k = F.conv2d(x, weight).chunk(2, 1)
        q, k = (e.unfold(2, patch, patch).unfold(3, patch, patch) for e in (q, k))
        y = torch.fft.irfft2(torch.fft.rfft2(q) * torch.fft.rfft2(k), s=(patch, patch)) / patch
        return y.transpose(3, 4).reshape(x.shape)

    channels = x.shape[1]
    return Layer(
        described("cross spectrum", {"patch": patch}),
        run,
        draw.weight(2 * channels, channels, 1, 1),
    )


@operator("frequency")
def rotary(draw: Draw, x: Tensor) -> Layer:
    """Rotary positions, by complex numbers or by halves."""
    way = draw.one("complex", "halves")

    def run(x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        count, half = y.shape[1], y.shape[2] // 2
        angles = torch.outer(torch.arange(count), torch.arange(half)).to(x.dtype) / 10
        if way == "halves":
            first, second = y[..., :half], y[..., half : 2 * half]
            parts = [first * angles.cos() - second * angles.sin()]
            parts += [first * angles.sin() + second * angles.cos()]
            return torch.cat(parts, -1)
        pairs = torch.view_as_complex(y[..., : 2 * half].unflatten(2, (half, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(2)

    return Layer(described("rotary", {"way": way}), run)
