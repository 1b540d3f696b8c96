"""Fourier transforms of torch 1.7."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import distillc
from distillc.frontend.old_spectral import bring_back, ifft, irfft, rfft


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    for name in ("rfft", "irfft", "ifft"):
        if hasattr(torch, name):
            delattr(torch, name)


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.rfft(x, signal_ndim=2, normalized=True)  # type: ignore[attr-defined]
        y = self.mix(torch.cat(y.unbind(-1), 1))
        y = torch.stack(y.chunk(2, 1), -1)
        sizes = x.shape[2:]
        return x + torch.irfft(  # type: ignore[attr-defined,no-any-return]
            y, signal_ndim=2, normalized=True, signal_sizes=sizes
        )


def test_a_network_that_calls_them(caplog: pytest.LogCaptureFixture) -> None:
    net = distillc.trace(Spectral(), torch.rand(1, 3, 8, 8))
    assert "torch.fft computes the same" in caplog.text
    x = torch.rand(1, 3, 8, 8)
    y = net.module.mix(
        torch.cat(torch.view_as_real(torch.fft.rfft2(x, norm="ortho")).unbind(-1), 1)
    )
    y = torch.view_as_complex(torch.stack(y.chunk(2, 1), -1).contiguous())
    torch.testing.assert_close(net.module(x), x + torch.fft.irfft2(y, s=(8, 8), norm="ortho"))


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("onesided", [True, False])
@pytest.mark.parametrize("axes", [1, 2])
def test_there_and_back(normalized: bool, onesided: bool, axes: int) -> None:
    x = torch.rand(2, 4, 7)
    y = rfft(x, axes, normalized, onesided)
    assert y.shape == (2, 4, 4 if onesided else 7, 2)
    back = irfft(y, axes, normalized, onesided, x.shape[-axes:] if onesided else None)
    torch.testing.assert_close(back, x)
    if not onesided:
        torch.testing.assert_close(ifft(y, axes, normalized)[..., 0], x)


def test_other_errors_are_left_alone() -> None:
    assert not bring_back(ValueError("another"))
    with pytest.raises(AttributeError) as error:
        torch.no_such_function  # type: ignore[attr-defined]  # noqa: B018
    assert not bring_back(error.value)
