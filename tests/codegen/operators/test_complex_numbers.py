"""Programs with complex numbers compute the same without them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.operators import complex_numbers
from distillc.codegen.operators.complex_numbers import split_complex
from distillc.codegen.operators.prepare import decompose
from tests.codegen.operators.programs import check_compiled, check_prepared

NORMS = ["forward", "backward", "ortho"]


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(NORMS))
@settings(max_examples=6, deadline=None)
def test_real_transforms_and_their_inverse(height: int, width: int, norm: str) -> None:
    def there_and_back(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft2(x, norm=norm)
        return torch.fft.irfft2(spectrum * spectrum, s=x.shape[-2:], norm=norm)

    check_prepared(there_and_back, torch.randn(2, height, width))


@pytest.mark.parametrize("extent", [2, 4])
def test_quarter_turns_are_exact(extent: int) -> None:
    """The sine of half a turn is 0, not 1.2e-16."""
    matrix = complex_numbers._matrix(extent, -1, torch.float32)
    for part in (matrix.real, matrix.imag):
        assert set(part.flatten().tolist()) <= {-1.0, 0.0, 1.0}


@given(st.integers(2, 9), st.sampled_from(NORMS), st.sampled_from([(-2,), (-1,), (-3, -1)]))
@settings(max_examples=6, deadline=None)
def test_complex_transforms(extent: int, norm: str, dim: tuple[int, ...]) -> None:
    def parts(x: torch.Tensor) -> torch.Tensor:
        y = torch.fft.fftn(x, dim=dim, norm=norm)
        z = torch.fft.ifftn(y * y.conj(), dim=dim, norm=norm)
        return torch.cat([y.real, y.imag, z.real, y.abs()], -1)

    check_prepared(parts, torch.randn(3, 4, extent))


def test_a_filter_of_complex_weights() -> None:
    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.randn(3, 8, 5, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            spectrum = torch.fft.rfft2(x) * torch.view_as_complex(self.weights)
            return torch.fft.irfft2(spectrum / 2 + 1, s=(8, 8))

    check_prepared(Filter(), torch.randn(1, 3, 8, 8))


def test_angles_of_positions_kept_as_complex_numbers() -> None:
    """Rotary positions (Su et al., RoFormer, section 3.4) as a buffer, and a complex weight."""

    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("turns", torch.polar(torch.ones(6, 4), torch.randn(6, 4)))
            self.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))
            self.never_used = nn.Parameter(torch.zeros(2, dtype=torch.complex64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pairs = torch.view_as_complex(x.reshape(2, 6, 4, 2)) * self.turns
            return torch.view_as_real(pairs @ self.weight).flatten(-2)

    check_prepared(Rotated(), torch.randn(2, 6, 8))


def test_turns_made_from_the_image() -> None:
    def turned(x: torch.Tensor) -> torch.Tensor:
        first, second = (torch.polar(x, 2 * x) * torch.exp(1j * x)).chunk(2, -1)
        kept = torch.where(x[..., :4] > 0, first, second @ second.transpose(-1, -2) @ first)
        return torch.cat([kept.real, kept.imag], -1)

    check_prepared(turned, torch.randn(3, 4, 8))


def test_amplitude_and_phase() -> None:
    def restored(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.fft2(x)
        amplitude, phase = spectrum.abs(), spectrum.angle()
        return torch.fft.ifft2(torch.complex(amplitude * phase.cos(), amplitude * phase.sin())).real

    found = check_prepared(restored, torch.randn(1, 2, 6, 6))
    assert not {"_fft_c2c", "complex", "real", "imag"} & set(found)


def test_frequencies_read_by_index() -> None:
    rows = torch.tensor([2, 0, 1, 3])

    def shifted(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.fftshift(torch.fft.fft2(x), (-2, -1))[..., rows, :]
        order = torch.arange(8).flip(0).expand(2, 4, 8)
        return torch.fft.ifft2(spectrum.gather(-1, order)).real

    check_prepared(shifted, torch.randn(2, 4, 8))


def test_a_real_program_is_left_alone() -> None:
    program = decompose(torch.export.export(nn.Conv2d(3, 3, 1), (torch.zeros(1, 3, 4, 4),)))
    assert split_complex(program) is program


def test_what_has_no_form_on_pairs() -> None:
    class Bent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).tanh().real

    with pytest.raises(NotImplementedError, match="tanh"):
        split_complex(decompose(torch.export.export(Bent(), (torch.zeros(4),))))


def test_other_functions_of_complex_numbers() -> None:
    def mixed(x: torch.Tensor) -> torch.Tensor:
        f = torch.fft.rfft2(x)
        parts = f**2, (f * 0.3).sqrt(), (f + 2).log(), (f + 3).reciprocal()
        return torch.cat([each.abs() for each in parts], 1) + torch.stack(parts).sum(0).real.repeat(
            1, 4, 1, 1
        )

    check_prepared(mixed, torch.rand(1, 2, 6, 5))


def test_frequencies_that_are_written_over() -> None:
    def cut(x: torch.Tensor) -> torch.Tensor:
        f = torch.fft.rfft2(x)
        other = torch.zeros(f.shape, dtype=torch.complex64)
        other[:, :1] = f[:, 1:] * 2
        f[..., 2:4, 1:3] = 0
        f[..., :1] *= 0.5
        return torch.fft.irfft2(f.repeat(1, 1, 1, 1) + other, s=x.shape[-2:])

    check_prepared(cut, torch.rand(1, 2, 6, 5))


def test_transforms_of_doubles() -> None:
    check_compiled(lambda x: torch.fft.rfft2(x.double()).abs(), torch.randn(1, 1, 4, 6), 1e-12)
