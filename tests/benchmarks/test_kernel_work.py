"""Counting the work of kernels from their TIR."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distillc.frontend.cost import count_cost
from distillc.targets.base import get_target
from tests.benchmarks.kernel_work import kernel_work

SHAPE = (1, 8, 6, 6)


def flops(module: nn.Module) -> int:
    work = kernel_work(module.eval(), get_target("generic-aarch64"), SHAPE)
    return sum(each.flops for each in work.values())


def test_convolutions_count_as_torch_counts_them() -> None:
    module = nn.Sequential(
        nn.Conv2d(8, 12, 1, bias=False),
        nn.Conv2d(12, 4, 3, padding=1, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
    )
    assert flops(module) == 2 * count_cost(module, SHAPE).macs


def test_elementwise_work_maxima_and_plain_sums_count_nothing() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x) * torch.softmax(x, 1)

    assert flops(Plain()) == 0


def test_traffic_is_inputs_and_outputs_once() -> None:
    work = kernel_work(nn.Conv2d(8, 4, 1, bias=False), get_target("generic-aarch64"), SHAPE)
    (kernel,) = (each for each in work.values() if each.flops)
    assert kernel.bytes == 4 * (8 * 36 + 4 * 8 + 4 * 36)
    assert kernel.rule
    assert "1x4x6x6" in kernel.shapes
