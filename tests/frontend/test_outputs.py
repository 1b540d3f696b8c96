"""Networks that return more than an image: the image is taken, and every module keeps its name."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import distillc
from distillc.errors import TraceError, UsageError
from distillc.frontend.outputs import described, tensors, whole_scale
from distillc.frontend.trace import export_program


@dataclass
class Result:
    image: Tensor
    loss: Tensor | None = None


class Slots:
    __slots__ = ("image", "unset")

    def __init__(self, image: Tensor) -> None:
        self.image = image


Named = namedtuple("Named", ["image", "scale"])


class Returning(nn.Module):
    """An image by one convolution, in what a function makes of it."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(x + self.body(x), x)


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple of one": lambda y, x: (y,),
    "scales, coarse first": lambda y, x: [avg_pool2d(y, 4), avg_pool2d(y, 2), y],
    "with features": lambda y, x: (y, x.repeat(1, 5, 1, 1)),
    "dict": lambda y, x: {"loss": None, "image": y},
    "ordered": lambda y, x: OrderedDict(reconstruction=y, hidden=(x.mean(), x.flatten(2))),
    "dataclass": lambda y, x: Result(y),
    "slots": lambda y, x: Slots(y),
    "named tuple": lambda y, x: Named(y, 2),
    "nested": lambda y, x: ([], {"stages": [Result(y)]}),
    "indices too": lambda y, x: (x.argmax(1, keepdim=True), y),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_image_is_taken(
    form: Callable[[Tensor, Tensor], Any], caplog: pytest.LogCaptureFixture
) -> None:
    module, x = Returning(form).eval(), torch.rand(1, 3, 16, 24)
    net = distillc.trace(module, x)
    wanted = x + module.body(x)
    assert torch.equal(net.module(x), wanted)
    assert torch.equal(copy.deepcopy(net.module)(x), wanted)
    assert net.multiple in (1, 2, 4)
    assert module.state_dict().keys() == net.module.state_dict().keys()
    assert not isinstance(module(x), Tensor)  # the user's own is as it was
    assert "is taken" in caplog.text
    program = export_program(net.module, (1, 3, 16, 24))
    torch.testing.assert_close(program.module()(x), wanted)
    stacks = [node.meta.get("nn_module_stack", {}) for node in program.graph.nodes]
    assert any("body.0" in path for stack in stacks for path, _ in stack.values())


def test_a_plain_image_stays(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Conv2d(3, 3, 1)
    assert distillc.trace(module, torch.rand(1, 3, 8, 8)).module is module
    assert not caplog.records


def stages(y: Tensor, x: Tensor) -> dict[str, list[Tensor]]:
    return {"stages": [y, 2 * y]}


def test_several_images_are_named() -> None:
    module, x = Returning(stages), torch.rand(1, 3, 8, 8)
    with pytest.raises(TraceError) as caught:
        distillc.trace(module, x)
    said = str(caught.value)
    assert "stages.0 (1, 3, 8, 8), stages.1 (1, 3, 8, 8)" in said
    assert "--output stages.0" in said
    for name, factor in (("stages.0", 1), ("stages.1", 2)):
        net = distillc.trace(module, x, output=name)
        assert torch.equal(net.module(x), factor * (x + module.body(x)))


def test_an_index_chooses_too() -> None:
    module, x = Returning(lambda y, x: (y, 3 * y)), torch.rand(1, 3, 8, 8)
    net = distillc.trace(module, x, output=1)
    assert torch.equal(net.module(x), 3 * (x + module.body(x)))


@pytest.mark.parametrize("wanted", ["2", "image", "", "stages", -1])
def test_a_name_that_is_not_there(wanted: str | int) -> None:
    with pytest.raises(UsageError, match=r"where: --output") as caught:
        distillc.trace(Returning(stages), torch.rand(1, 3, 8, 8), output=wanted)
    assert "stages.0 (1, 3, 8, 8)" in str(caught.value)


def test_a_chosen_output_that_is_no_image() -> None:
    module = Returning(lambda y, x: (y, y.mean()))
    with pytest.raises(TraceError, match=r"must return an image .* not \(\)"):
        distillc.trace(module, torch.rand(1, 3, 8, 8), output=1)


def test_no_image_among_several() -> None:
    module = Returning(lambda y, x: {"small": avg_pool2d(y, 2), "mean": y.mean()})
    with pytest.raises(TraceError, match=r"not a dict of small \(1, 3, 4, 4\), mean \(\)"):
        distillc.trace(module, torch.rand(1, 3, 8, 8))


def test_an_object_that_holds_itself() -> None:
    holder: dict[str, Any] = {"image": torch.zeros(1, 3, 4, 4)}
    holder["self"] = holder
    names = [name for name, _ in tensors(holder)]
    assert names[0] == "image"
    assert len(names) == 4


@pytest.mark.parametrize(
    ("output", "scale"),
    [
        (torch.zeros(1, 3, 8, 12), 1),
        (torch.zeros(1, 1, 16, 24), 2),
        (torch.zeros(1, 3, 16, 12), None),
        (torch.zeros(1, 3, 4, 6), None),
        (torch.zeros(2, 3, 8, 12), None),
        (torch.zeros(1, 0, 8, 12), None),
        (torch.zeros(1, 3, 8, 12, dtype=torch.float64), None),
        ((torch.zeros(1, 3, 8, 12),), None),
    ],
)
def test_what_an_image_is(output: Any, scale: int | None) -> None:
    assert whole_scale((1, 3, 8, 12), output) == scale


def test_words_for_outputs() -> None:
    assert described((torch.zeros(2), None)) == "a tuple of 0 (2,)"
    assert described([torch.zeros(1, dtype=torch.int64)]) == "a list of 0 int64 (1,)"
    assert described(None) == "a NoneType"
