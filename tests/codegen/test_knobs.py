"""Knobs: defaults, records, and the space that asking leaves behind."""

from __future__ import annotations

import pytest
import torch
import tvm
from torch import nn
from tvm import tirx

from distillc.codegen.knobs import Knobs
from distillc.codegen.schedule.rules import RULES
from distillc.codegen.schedule.rules.base import inline_elementwise, simplify
from distillc.codegen.schedule.rules.flatten import merge_axes
from tests.codegen.schedule.rules.kernels import SSE, Function, lower, random


def test_no_record_gives_defaults_and_notes_the_space() -> None:
    knobs = Knobs()
    assert knobs.choose("rows", (8, 4, 2), 4) == 4
    assert knobs.space == {"rows": (4, 8, 2)}
    assert knobs.values == {"rows": 4}


def test_record_is_followed() -> None:
    assert Knobs({"rows": 8}).choose("rows", (8, 4, 2), 4) == 8


def test_value_that_is_no_option_is_passed_over() -> None:
    assert Knobs({"rows": 3}).choose("rows", (8, 4, 2), 4) == 4


def test_knob_that_is_asked_twice_keeps_its_first_options() -> None:
    knobs = Knobs({"rows": 8})
    assert knobs.choose("rows", (8, 4), 4) == 8
    assert knobs.choose("rows", (2, 1), 1) == 1
    assert knobs.space == {"rows": (4, 8)}
    assert knobs.values == {"rows": 8}


PRODUCT = Function(torch.matmul)
KERNELS = [
    (nn.Conv2d(16, 48, 1, bias=False), (random(1, 16, 32, 32),), {"vectors", "height", "run"}),
    (nn.Conv2d(8, 8, 3, padding=1, bias=False), (random(1, 8, 32, 32),), {"vectors", "height"}),
    (nn.Conv2d(8, 8, 3, padding=1, groups=8), (random(1, 8, 32, 32),), {"lines", "strip"}),
    (PRODUCT, (random(1, 16, 4096), random(1, 4096, 16)), {"chunk", "height", "vectors"}),
    (Function(lambda x: x - x.mean(1, keepdim=True)), (random(1, 12, 16, 16),), {"width"}),
    (nn.Softmax(-1), (random(2, 9, 256),), {"vectors"}),
    (
        Function(lambda q, k: q @ k.transpose(-2, -1)),
        (random(1, 16, 4096), random(1, 16, 4096) + 1),
        {"chunk", "height", "width"},
    ),
]


@pytest.mark.parametrize(("module", "inputs", "expected"), KERNELS)
def test_rules_have_knobs_and_every_option_schedules(module, inputs, expected) -> None:
    for func in kernels(lower(module, *inputs)):
        rules = (entry.schedule for entry in RULES)
        rule = next(rule for rule in rules if rule(func, SSE, Knobs()) is not None)
        knobs = Knobs()
        rule(func, SSE, knobs)
        assert expected <= knobs.space.keys()
        for name, options in knobs.space.items():
            for option in options:
                changed = Knobs({name: option})
                assert rule(func, SSE, changed) is not None
                assert changed.values[name] == option


def kernels(mod: tvm.IRModule) -> list[tirx.PrimFunc]:
    """Return a module's kernels in the form that rules get."""
    funcs = [func for _, func in mod.functions_items() if isinstance(func, tirx.PrimFunc)]
    return [merge_axes(simplify(inline_elementwise(simplify(func)))).func for func in funcs]
