"""FoldLayouts: constants are reshaped, transposed and sliced at once."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.rewrites.fold_layouts import FoldLayouts
from tests.codegen.rewrites.graphs import check_nothing, check_same, operators
from tests.codegen.schedule.rules.kernels import random


class _Scaled(nn.Module):
    """Multiplies by a weight after a rearrangement."""

    def __init__(self, weight: torch.Tensor, order: list[int], shape: list[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.order, self.shape = order, shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.permute(self.order).reshape(self.shape)


@given(st.permutations([0, 1, 2]), st.permutations([4, 6, 5]))
@settings(max_examples=5, deadline=None)
def test_weights_are_rearranged(order: list[int], shape: list[int]) -> None:
    network = _Scaled(random(4, 5, 6), order, shape)
    assert set(operators(check_same(FoldLayouts(), network, random(*shape)))) == {"multiply"}


def test_linear_layer_reads_a_transposed_weight() -> None:
    after = check_same(FoldLayouts(), nn.Linear(6, 4), random(3, 6))
    assert "permute_dims" not in operators(after)


@given(st.integers(-6, 5), st.integers(-6, 9), st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_slices_of_weights(first: int, end: int, step: int) -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(random(2, 6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight[1:, first:end:step]

    extent = len(range(*slice(first, end, step).indices(6)))
    assume(extent)
    after = check_same(FoldLayouts(), Part(), random(1, extent))
    assert set(operators(after)) == {"multiply"}


def test_chain_over_half_precision_weights() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(random(2, 3, 4).half())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.weight.transpose(0, 2).reshape(1, 4, 6).transpose(1, 2)

    after = check_same(FoldLayouts(), Half(), random(1, 6, 4).half())
    assert set(operators(after)) == {"add"}


def test_activations_and_repeated_weights_stay() -> None:
    check_nothing(FoldLayouts(), lambda x: x.reshape(5, 84).transpose(0, 1), random(1, 5, 12, 7))

    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(random(1, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.weight.expand(3, 4)

    after = check_same(FoldLayouts(), Repeats(), random(3, 4))
    assert operators(after) == operators(check_same(lambda mod: mod, Repeats(), random(3, 4)))
