from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

import distillc
from distillc.frontend.cost import count_cost, count_costs, output_shape
from distillc.frontend.restormer import Restormer
from distillc.passes import Trace


def test_a_convolution_by_hand() -> None:
    cost = count_cost(nn.Conv2d(3, 8, 3, padding=1), (1, 3, 10, 12))
    assert cost.params == 3 * 8 * 9 + 8
    assert cost.macs == 3 * 8 * 9 * 120


def test_parts_sum_to_the_whole() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 5, 1, bias=False))
    costs = count_costs(module, (1, 3, 6, 6))
    assert costs["0"].macs == 3 * 4 * 36
    assert costs["1"].macs == 4 * 5 * 36
    assert costs[""].macs == costs["0"].macs + costs["1"].macs


def test_full_size_costs_no_computation() -> None:
    with torch.device("meta"):
        module = Restormer()
    cost = count_cost(module, (1, 3, 256, 256))
    assert cost.params == 26_126_644
    # The paper's table: 140.99 G at 256x256 (without attention's products).
    assert 140e9 < cost.macs < 160e9


def test_the_module_is_left_alone(tiny_restormer: nn.Module) -> None:
    count_cost(tiny_restormer, (1, 3, 64, 64))
    assert next(tiny_restormer.parameters()).device.type == "cpu"


def test_shape_of_a_result(tiny_restormer: nn.Module) -> None:
    assert output_shape(tiny_restormer, (2, 3, 64, 8)) == (2, 3, 64, 8)
    assert output_shape(nn.PixelShuffle(2), (1, 8, 3, 5)) == (1, 2, 6, 10)


def test_values_are_guessed() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = nn.Parameter(torch.tensor([0.2]))
            self.mix = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * self.k.item()
            y[x > 0] = 2 * x[x > 0]
            return self.mix(y) * max(1, int(x.amax().long()))

    assert count_cost(Gated(), (1, 3, 4, 4)).macs == 3 * 4 * 4 * 4
    assert output_shape(Gated(), (2, 3, 4, 4)) == (2, 3, 4, 4)


class Grid(nn.Module):
    """Makes a grid on the CPU, as it runs, and values of it by name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.linspace(-1, 1, x.shape[2])
        seen = torch.nonzero(rows > 0)  # known: only the image has no values
        return F.pad(x * rows[:, None], (0, 0, 0, len(seen)))


def test_what_a_network_makes_on_the_cpu() -> None:
    assert output_shape(Grid(), (1, 3, 6, 5)) == (1, 3, 9, 5)


def test_counting_never_asks_for_values() -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = transforms.functional.normalize(x, [0.5] * 3, [0.5] * 3)
            if torch.isinf(x).any():
                raise ValueError("infinite")
            result: torch.Tensor = self.mix(x)
            return result

    net = Trace()(distillc.trace(Normalised(), torch.rand(1, 3, 4, 4)))
    assert count_cost(net.module, net.input_shape).macs == 3 * 4 * 4 * 4
