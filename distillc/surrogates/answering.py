"""Surrogates map an image to an image; these answer calls with more, as their blocks do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_unflatten

from distillc.frontend.calls import Call, is_alike
from distillc.network import Layout
from distillc.surrogates.stand_in import StandIn


class Answering(StandIn):
    """A surrogate in the place of a block that returns several values, or is given a structure.

    1. Of what is given the first tensor goes through the surrogate.
    2. What the block returns beside that with the same grid is a linear map of the surrogate's
       input and output, which is trained with it.
    3. What has the shape of something that is given, as attention maps that blocks hand on, is
       handed on.
    4. All other tensors are None: the graph says that nothing uses them.

    Args:
        surrogate: Maps the tensor.
        call: How the block was called.
        layout: What the axes of the tensor are.
    """

    def __init__(self, surrogate: StandIn, call: Call, layout: Layout) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.place, self.at = call.place, call.at
        self.form = call.returned_form
        axis = 1 if layout == "image" else -1
        wide = 2 * call.given.shape[axis]
        self.image = layout == "image"
        self.beside = nn.ModuleDict()
        self.handed_on: dict[int, int] = {}
        self.constants: dict[int, Any] = {}
        for number, each in enumerate(call.returned):
            if not isinstance(each, Tensor):
                self._keep(number, each, call)
            elif number != self.at and _on_grid(each, call.result, axis):
                self.beside[str(number)] = _linear(wide, each.shape[axis], self.image)
            elif number != self.at and (origin := _origin(each, call)) is not None:
                self.handed_on[number] = origin

    def _keep(self, number: int, value: Any, call: Call) -> None:
        """Let a number or text be the first argument that it equals, or what it was."""
        for place, each in enumerate(call.arguments):
            taken = place in self.handed_on.values()
            if not taken and type(each) is type(value) and each == value:
                self.handed_on[number] = place
                return
        self.constants[number] = value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = tree_leaves((args, kwargs))
        x = given[self.place]
        sides = [each for each in given if isinstance(each, int)]
        y = self.surrogate(x, *sides) if sides and not self.image else self.surrogate(x)
        answers: list[Any] = [self.constants.get(n) for n in range(self.form.num_leaves)]
        answers[self.at] = y
        for name, layer in self.beside.items():
            answers[int(name)] = layer(torch.cat([x, y], 1 if self.image else -1))
        for number, place in self.handed_on.items():
            answers[number] = given[place]
        return tree_unflatten(answers, self.form)

    def calibrate(self, given: Tensor, mixed: Tensor) -> None:
        self.surrogate.calibrate(given, mixed)


def _linear(given: int, made: int, image: bool) -> nn.Module:
    """Return a linear map over channels that starts as zero."""
    layer: nn.Module = (
        nn.utils.skip_init(nn.Conv2d, given, made, 1, bias=False)
        if image
        else nn.utils.skip_init(nn.Linear, given, made, bias=False)
    )
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    return layer


def _on_grid(value: Tensor, result: Tensor, axis: int) -> bool:
    """Whether a value has the grid of the result, and channels of its own."""
    if not is_alike(value, result):
        return False
    made = list(result.shape)
    made[axis] = value.shape[axis]
    return made == list(value.shape)


def _origin(value: Tensor, call: Call) -> int | None:
    """Return the number of the argument besides the first tensor that has a value's shape."""
    for place, each in enumerate(call.arguments):
        if place != call.place and isinstance(each, Tensor) and each.shape == value.shape:
            return place
    return None
