"""Norms and moments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared

HOST = get_target("host")


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 6),
        nn.GroupNorm(3, 6, affine=False),
        nn.InstanceNorm2d(6, affine=True),
        nn.InstanceNorm2d(6),
    ],
)
def test_norms_of_groups_and_of_every_channel(norm: nn.Module) -> None:
    found = check_prepared(norm, 3 + torch.randn(2, 6, 4, 5))
    assert not {"native_group_norm", "_native_batch_norm_legit"} & set(found)


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dim", [1, (0, -1), None])
@pytest.mark.parametrize("correction", [0, 1])
def test_variance_with_its_mean(dim: Any, keepdim: bool, correction: int) -> None:
    def moments(x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, dim, correction=correction, keepdim=keepdim)
        return variance + 2 * mean

    assert "var_mean" not in check_prepared(moments, torch.rand(2, 3, 4))


def test_many_halves_are_summed_in_float32() -> None:
    def sums(x: torch.Tensor) -> torch.Tensor:
        y = x.half()
        found = [y.sum(), y.mean(), y.norm(), y.var(), y.cumsum(0)[-1], y.logsumexp(0)]
        found += [y.softmax(0).amax(), F.layer_norm(y * 300, (4096,)).amax()]
        return torch.stack(found)

    check_compiled(sums, torch.linspace(0.5, 1.5, 4096), error=2e-3)


def test_layers_of_doubles() -> None:
    weight, bias = torch.randn(6).double(), torch.randn(6).double()
    check_compiled(lambda x: F.layer_norm(x.double(), (6,), weight, bias), torch.randn(4, 6), 1e-12)
