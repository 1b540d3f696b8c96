"""Attention that allows kernels of CUDA only."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

import distillc
from distillc.frontend.cpu_attention import allow_math
from distillc.frontend.trace import export_program


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with mock.patch.object(attention, "_sdpa_kernel", attention._sdpa_kernel):
        yield


class Restricted(nn.Module):
    def __init__(self, *kernels: SDPBackend, priority: bool = False) -> None:
        super().__init__()
        self.kernels, self.priority = list(kernels), priority
        self.qkv = nn.Conv2d(3, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.flatten(2) for each in self.qkv(x).chunk(3, 1))
        with sdpa_kernel(self.kernels, set_priority=self.priority):
            return x + scaled_dot_product_attention(q, k, v).view_as(x)


class Decorated(Restricted):
    @sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION)
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.flatten(2) for each in self.qkv(x).chunk(3, 1))
        return x + scaled_dot_product_attention(q, k, v).view_as(x)


CUDNN, EFFICIENT = SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION


@pytest.mark.parametrize(
    "module",
    [
        Restricted(CUDNN),
        Restricted(EFFICIENT, CUDNN, priority=True),
        Decorated(),
    ],
)
def test_the_plain_kernel_stands_in(module: Restricted, caplog: pytest.LogCaptureFixture) -> None:
    x = torch.rand(1, 3, 8, 8)
    with pytest.raises(RuntimeError, match=r"No available kernel|No viable backend"):
        module(x)
    net = distillc.trace(module, x)
    assert "SDPBackend.MATH is allowed too" in caplog.text
    q, k, v = (each.flatten(2) for each in module.qkv(x).chunk(3, 1))
    wanted = x + scaled_dot_product_attention(q, k, v).view_as(x)
    torch.testing.assert_close(net.module(x), wanted)
    program = export_program(net.module, (1, 3, 8, 8))
    torch.testing.assert_close(program.module()(x), wanted)
    assert {CUDNN, EFFICIENT} <= set(attention._cur_sdpa_kernel_backends())


def test_what_runs_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    before = attention._sdpa_kernel
    distillc.trace(Restricted(SDPBackend.MATH), torch.rand(1, 3, 8, 8))
    assert attention._sdpa_kernel is before
    assert not caplog.records


def test_beside_a_further_input() -> None:
    class Levelled(Restricted):
        def forward(self, x: Tensor, level: float) -> Tensor:  # type: ignore[override]
            return super().forward(x) * level

    net = distillc.trace(Levelled(CUDNN), torch.rand(1, 3, 8, 8), inputs={"level": torch.ones(1)})
    assert net.module(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


def test_it_is_allowed_once() -> None:
    assert not allow_math(RuntimeError("another error"))
    assert allow_math(RuntimeError("No available kernel. Aborting execution."))
    assert not allow_math(RuntimeError("No available kernel. Aborting execution."))
