"""Digests of modules: equal for equal modules in every process, others wherever results differ."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distillc.frontend.structure import module_digest, structure_digest
from tests.conftest import build_tiny_restormer

OPTIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


class Layer(nn.Module):
    """A module with one option."""

    def __init__(self, option: Any) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)
        self.option = option

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.inner(x)
        return output


class Other(Layer):
    """Its class has other code."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


def leaky(slope: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.where(x > 0, x, slope * x)


@given(OPTIONS, OPTIONS)
def test_options_decide(one: Any, other: Any) -> None:
    same = repr(one) == repr(other)
    assert (structure_digest(Layer(one)) == structure_digest(Layer(other))) is same
    assert structure_digest(Layer(one)) == structure_digest(copy.deepcopy(Layer(one)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [1, 3]),
        ((1, 2), [1, 2]),
        ({"axes": {1, 2}}, {"axes": {1, 3}}),
        (torch.float16, torch.bfloat16),
        (torch.channels_last, torch.contiguous_format),
        (torch.relu, torch.tanh),
        (torch.nn.functional.relu, torch.nn.functional.gelu),
        (torch.ops.aten.relu.default, torch.ops.aten.tanh.default),
        (leaky(0.1), leaky(0.2)),
        (functools.partial(torch.add, alpha=1), functools.partial(torch.add, alpha=2)),
        (nn.ReLU, nn.GELU),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        ([nn.Conv2d(1, 1, 1)], [nn.Conv2d(1, 1, 3)]),  # modules that are not registered
        (torch.zeros(2), torch.zeros(3)),
        (slice(1), slice(2)),
    ],
    ids=lambda each: type(each).__name__,  # texts of functions have addresses in them
)
def test_options_of_every_kind_decide(one: Any, other: Any) -> None:
    assert structure_digest(Layer(one)) != structure_digest(Layer(other))
    assert structure_digest(Layer(one)) == structure_digest(Layer(one))


def test_values_of_tensors_are_left_out_of_the_structure_only() -> None:
    one, other = Layer(None), Layer(None)
    assert structure_digest(one) == structure_digest(other)
    assert module_digest(one) != module_digest(other)
    other.load_state_dict(one.state_dict())
    assert module_digest(one) == module_digest(other)
    # State dictionaries hold neither buffers that are not persistent nor tensors in attributes.
    for first, second in ((1.0, 2.0), (2.0, 2.0)):
        one.register_buffer("scale", torch.tensor(first), persistent=False)
        other.register_buffer("scale", torch.tensor(second), persistent=False)
        assert (module_digest(one) == module_digest(other)) is (first == second)
    one.option, other.option = torch.ones(1), torch.zeros(1)
    assert module_digest(one) != module_digest(other)


def test_types_of_weights_classes_and_names_decide() -> None:
    one = Layer(None)
    assert structure_digest(one) != structure_digest(Layer(None).half())
    assert structure_digest(one) != structure_digest(Other(None))
    renamed = nn.Sequential()
    renamed.add_module("first", nn.ReLU())
    assert structure_digest(renamed) != structure_digest(nn.Sequential(nn.ReLU()))


def test_the_code_of_a_class_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structure_digest(Layer(None))
    monkeypatch.setattr(Layer, "forward", lambda self, x: self.inner(x) * 2)
    assert structure_digest(Layer(None)) != before


def test_hooks_decide_and_how_many_there_were_before_does_not() -> None:
    def double(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return 2 * output

    one, other = Layer(None), Layer(None)
    before = structure_digest(one)
    one.register_forward_hook(double)
    assert structure_digest(one) != before
    other.register_forward_hook(double).remove()
    assert structure_digest(other) == before
    other.register_forward_hook(double)
    assert structure_digest(other) == structure_digest(one)


def test_mode_and_place_do_not_decide() -> None:
    one = Layer([1])
    before = structure_digest(one)
    assert structure_digest(one.train()) == structure_digest(one.eval()) == before
    assert structure_digest(copy.deepcopy(one).to("meta")) == before


def test_what_cannot_be_pickled_and_circles_end() -> None:
    one, other = Layer(threading.Lock()), Layer(threading.Lock())
    assert structure_digest(one) == structure_digest(other)
    circle: list[Any] = [one]
    circle.append(circle)
    one.option = circle
    other.option = [other]
    assert structure_digest(one) != structure_digest(other)


SCRIPT = """
import torch
from distillc.frontend.structure import module_digest
from tests.conftest import build_tiny_restormer
from tests.frontend.test_structure import Layer

restormer = build_tiny_restormer()
program = torch.export.export(restormer, (torch.zeros(1, 3, 16, 16),)).module()
layer = Layer({"names": {"a", "b", "c"}, "dtype": torch.half})
with torch.no_grad():
    layer.inner.weight.fill_(1)
    layer.inner.bias.fill_(0)
print(*map(module_digest, (restormer, program, layer)))
"""


def test_every_process_finds_the_same() -> None:
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found[0] == found[1]
    assert found[0][0] == module_digest(build_tiny_restormer())
    assert len(set(found[0])) == 3
