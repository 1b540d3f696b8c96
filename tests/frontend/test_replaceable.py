"""Which modules a surrogate can stand in for, and why not the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from distillc.frontend.replaceable import ReplaceableModules

IMAGE = (1, 3, 8, 8)


class Part(nn.Module):
    """Features (B, 4, 8, 8) through a convolution and a function of both."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.conv(x))


class Network(nn.Module):
    """An image (B, 3, 8, 8) to itself; `part` maps features (B, 4, 8, 8)."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 1)
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.embed(x)).mean((1, 2, 3), keepdim=True) + x

    def call(self, features: Tensor) -> Tensor:
        return self.part(features)


class Smaller(Network):
    """Its part is called a second time, with half as many pixels."""

    def call(self, features: Tensor) -> Tensor:
        return self.part(self.part(features)[..., ::2])


def read(network: nn.Module) -> ReplaceableModules:
    return ReplaceableModules(torch.export.export(network.eval(), (torch.zeros(IMAGE),)), IMAGE)


def test_a_residual_module_is_a_block() -> None:
    found = read(Network(Part(lambda x, y: x + y)))
    assert found.why_not("part") == ""
    assert found.is_block("part")
    assert not found.is_part("part")
    assert found.extent("part") == (1, 4, 8, 8)
    assert found.layout("part") == "image"


def test_a_module_beside_a_residual_is_a_part() -> None:
    found = read(Network(Part(lambda x, y: x + y)))
    assert found.is_part("part.conv")
    assert not found.is_block("part.conv")


@pytest.mark.parametrize(
    ("network", "path", "reason"),
    [
        (Network(Part(lambda x, y: x + y)), "elsewhere", "is not inside any module"),
        (Network(Part(lambda x, y: x + y)), "embed", "maps (1, 3, 8, 8) to (1, 4, 8, 8)"),
        (Network(Part(lambda x, y: y[..., ::2])), "part", "maps (1, 4, 8, 8) to (1, 4, 8, 4)"),
        (Smaller(Part(lambda x, y: x + y)), "part", "is called with different shapes"),
        (Network(Part(lambda x, y: x * y)), "part", "has no residual connection"),
    ],
    ids=["no module", "channels", "pixels", "shapes", "a gate"],
)
def test_the_reason_is_said(network: nn.Module, path: str, reason: str) -> None:
    assert read(network).why_not(path) == reason


def test_what_maps_the_image_is_a_network() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Network(Part(lambda x, y: x + y))

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x).clamp(0, 1)

    assert read(Inside()).why_not("network") == "maps the image to an image"
