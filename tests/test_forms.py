from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from distillc.forms import Tensors, Times


def test_tensors_come_back() -> None:
    like = nn.BatchNorm2d(3).state_dict()
    form = Tensors(like)
    found = form.unpack(form.pack(like))
    form.check(found)
    assert all(torch.equal(found[name], like[name]) for name in like)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": torch.full((2, 2), math.nan)}, "not finite, in a"),
        ({"a": torch.full((2, 2), -math.inf)}, "not finite, in a"),
        ({"a": torch.zeros(4)}, "another shape or type, a"),
        ({"a": torch.zeros(2, 2, dtype=torch.float64)}, "another shape or type, a"),
        ({"b": torch.zeros(1)}, "other tensors"),
    ],
)
def test_what_is_wrong_with_tensors(change: dict[str, torch.Tensor], said: str) -> None:
    form = Tensors({"a": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=said):
        form.check({"a": torch.zeros(2, 2), **change})


def test_a_mask_of_infinities_stays_one() -> None:
    mask = torch.tensor([0.0, -math.inf])
    Tensors({"mask": mask}).check({"mask": mask})
    with pytest.raises(ValueError, match="not finite"):
        Tensors({"mask": mask}).check({"mask": mask.flip(0)})


def test_times() -> None:
    form = Times(["a", "b"])
    times = {"a": 1.5, "b": 0.25}
    assert form.unpack(form.pack(times)) == times
    form.check(times)
    for wrong in ({"a": 1.0}, {**times, "c": 1.0}):
        with pytest.raises(ValueError, match="other names"):
            form.check(wrong)
    for value in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="not a time"):
            form.check({"a": value, "b": 1.0})
