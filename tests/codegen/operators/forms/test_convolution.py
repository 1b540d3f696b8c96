"""Convolutions whose windows do not overlap, and transposed ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.codegen.operators.programs import check_compiled, check_prepared


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_windows_side_by_side_are_a_product(window: tuple[int, int], bias: bool) -> None:
    for kind in (nn.Conv2d, nn.ConvTranspose2d):
        module = kind(3, 5, window, window, bias=bias)
        found = check_prepared(module, torch.randn(2, 3, 4, 12))
        assert found["convolution"] + found["conv2d"] == 1
        assert found["permute"] == 1
        check_compiled(module, torch.randn(1, 3, 4, 12))


@pytest.mark.parametrize(
    "module",
    [
        nn.ConvTranspose2d(4, 4, 4, 2, 1),
        nn.ConvTranspose2d(4, 4, 2, 2, groups=2),
        nn.ConvTranspose2d(4, 4, 2, 2, output_padding=1),
        nn.Conv2d(4, 4, 2, 2, groups=2),
        nn.Conv2d(4, 4, 2, 2, 1),
        nn.Conv2d(4, 4, 3, 3),
        nn.Conv2d(4, 4, 1),
    ],
)
def test_others_stay(module: nn.Module) -> None:
    found = check_prepared(module, torch.randn(1, 4, 4, 6))
    assert found["permute"] == 0
    check_compiled(module, torch.randn(1, 4, 4, 6))
