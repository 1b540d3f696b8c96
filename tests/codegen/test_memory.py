"""The static memory plan: shared, and linear in the image's size."""

from __future__ import annotations

from torch import nn

from distillc.codegen.lower import lower
from distillc.codegen.memory import planned_bytes
from distillc.frontend.trace import export_program
from distillc.targets.base import get_target


def plan(module: nn.Module, *shape: int) -> int:
    return planned_bytes(lower(export_program(module.eval(), shape), get_target("host")))


def test_layers_share_memory() -> None:
    layers = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)]
    tensor = 4 * 16 * 16 * 4
    assert tensor < plan(nn.Sequential(*layers), 1, 4, 16, 16) <= 2 * tensor


def test_one_kernel_needs_nothing() -> None:
    assert plan(nn.Conv2d(4, 4, 3, padding=1), 1, 4, 16, 16) == 0


def test_memory_is_linear_in_the_pixels(tiny_restormer: nn.Module) -> None:
    small, large = (plan(tiny_restormer, 1, 3, size, size) for size in (32, 64))
    assert 3.5 * small < large < 4.2 * small
