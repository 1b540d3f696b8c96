from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from distillc.data.metrics import (
    EQUAL,
    MOST_PSNR,
    average_psnr,
    finite_psnr,
    mean_psnr,
    psnr,
    ssim,
)


def test_psnr_of_a_known_error() -> None:
    reference = torch.full((1, 3, 8, 8), 0.5)
    assert psnr(reference + 0.1, reference) == pytest.approx(20, abs=1e-4)
    assert psnr(reference, reference) == math.inf
    assert finite_psnr(reference, reference) == MOST_PSNR
    assert finite_psnr(reference + 0.1, reference) == psnr(reference + 0.1, reference)


def test_equal_images_do_not_hide_the_others_in_a_mean() -> None:
    assert average_psnr([30.0, math.inf]) == (30 + EQUAL) / 2
    assert math.isnan(average_psnr([30.0, math.nan]))
    assert math.isnan(average_psnr([math.nan, 30.0]))


def test_psnr_of_a_module_is_the_mean_over_pairs() -> None:
    clean = torch.full((1, 3, 8, 8), 0.5)
    pairs = [(clean + 0.1, clean), (clean + 0.01, clean)]
    assert mean_psnr(nn.Identity(), pairs) == pytest.approx((20 + 40) / 2, abs=1e-3)
    assert mean_psnr(nn.Identity(), [(clean, clean)]) == EQUAL


def test_psnr_clamps() -> None:
    assert psnr(torch.full((4,), 7.0), torch.ones(4)) == math.inf


def test_ssim_is_one_for_equals_and_falls_with_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 32, 32, generator=generator)
    noise = torch.randn(image.shape, generator=generator)
    assert ssim(image, image) == pytest.approx(1)
    assert 1 > ssim(image + 0.05 * noise, image) > ssim(image + 0.3 * noise, image)
    assert ssim(image[0, :1], image[0, :1]) == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (10, 10)])
def test_ssim_of_images_smaller_than_its_window(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert ssim(image, image) == pytest.approx(1)
    assert -1 <= ssim(1 - image, image) < 0.99
