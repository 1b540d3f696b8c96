"""A surrogate answers as its block does: in the same structure, with what others use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillc.frontend.calls import Call, record_calls
from distillc.surrogates.answering import Answering
from distillc.surrogates.stand_in import StandIn


class Doubled(StandIn):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class Network(nn.Module):
    """Calls one block with given arguments before and after the image."""

    def __init__(self, block: nn.Module, *rest: Any, nested: bool = False) -> None:
        super().__init__()
        self.block, self.rest, self.nested = block, rest, nested

    def forward(self, x: Tensor) -> Any:
        return self.block([x, *self.rest]) if self.nested else self.block(x, *self.rest)


def call_of(network: nn.Module, image: Tensor) -> Call:
    return record_calls(network, ["block"], image)["block"]


def test_what_is_on_the_same_grid_is_made_and_trained() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, x[:, :2] * 3

    image = torch.rand(1, 4, 8, 6)
    call = call_of(Network(Block()), image)
    assert list(call.beside) == [1]
    torch.testing.assert_close(call.beside[1], image[:, :2] * 3)
    answering = Answering(Doubled(), call, "image")
    made, beside = answering(image)
    torch.testing.assert_close(made, image * 2)
    torch.testing.assert_close(beside, torch.zeros(1, 2, 8, 6))
    layer = answering.beside["1"]
    with torch.no_grad():  # of (x, 2 x): the first two channels of x, three times
        layer.weight[[0, 1], [0, 1]] = 3  # type: ignore[index, operator]
    torch.testing.assert_close(answering(image)[1], call.beside[1])
    answering(torch.rand(1, 4, 16, 6))[1].sum().backward()
    assert layer.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


def test_tokens_have_their_channels_last() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x, "map": x @ x.mT, "half": x[..., :2]}

    call = call_of(Network(Block()), torch.rand(1, 48, 4))
    assert list(call.beside) == [2]  # the square one is an attention map
    answers = Answering(Doubled(), call, "tokens")(torch.ones(1, 12, 4))
    assert answers["x"].shape == (1, 12, 4)
    assert answers["map"] is None
    assert answers["half"].shape == (1, 12, 2)


def test_maps_and_sizes_are_handed_on() -> None:
    class Block(nn.Module):
        def forward(self, given: list[Any]) -> list[Any]:
            x, weights, height, width, name = given
            return [x + 1, weights * 0.5, height, width, name, "mine"]

    image, weights = torch.rand(1, 4, 8, 8), torch.rand(1, 2, 64, 64)
    call = call_of(Network(Block(), weights, 8, 8, "a", nested=True), image)
    assert call.nests
    answering = Answering(Doubled(), call, "image")
    other = torch.rand(1, 2, 32, 32)
    made, handed, *rest = answering([image, other, 4, 2, "b"])
    torch.testing.assert_close(made, image * 2)
    assert handed is other
    assert rest == [4, 2, "b", "mine"]


def test_a_call_repeats_another_module_in_the_same_structure() -> None:
    class Block(nn.Module):
        def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"mean": given["x"].mean(1), "x": given["x"] * given["scale"]}

    class Dictionary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.block({"x": x, "scale": torch.full((1,), 3.0)})["x"]
            return y

    image = torch.rand(1, 4, 8, 8)
    call = call_of(Dictionary(), image)
    torch.testing.assert_close(call.result, image * 3)
    torch.testing.assert_close(call.repeat(Block(), image + 1), (image + 1) * 3)
