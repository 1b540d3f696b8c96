"""Tensors that stand for numbers in an index do what the numbers do."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distillc.frontend.values.tensor_forms import gathered_experts, read_at, write_at

BOUNDS = st.none() | st.integers(-7, 7)


def as_tensors(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return an index with tensors in the place of numbers."""
    return tuple(
        slice(*(None if each is None else torch.tensor([each]) for each in (part.start, part.stop)))
        if isinstance(part, slice)
        else torch.tensor(part)
        if isinstance(part, int)
        else part
        for part in index
    )


@given(st.tuples(st.integers(0, 1), BOUNDS, BOUNDS, BOUNDS, BOUNDS, st.booleans()))
def test_slices_that_are_written_to(drawn: tuple[Any, ...]) -> None:
    first, a, b, c, d, whole = drawn
    index = (first, ..., slice(a, b), slice(c, d)) if whole else (first, slice(a, b), slice(c, d))
    wanted = torch.arange(2.0 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    found = wanted.clone()
    wanted[index] = -1.0
    tensors = (first, *as_tensors(index[1:]))
    assert write_at(found, tensors, -1.0) == any(each is not None for each in (a, b, c, d))
    if any(each is not None for each in (a, b, c, d)):
        assert torch.equal(found, wanted)


@given(st.integers(-2, 1), st.integers(-5, 4), st.booleans())
def test_places_that_are_read(first: int, second: int, new: bool) -> None:
    x = torch.rand(2, 3, 5, 4)
    index = (first, ..., second, slice(1, 3)) + (None,) * new
    found = read_at(x, (torch.tensor(first), ..., torch.tensor(second), slice(1, 3), *index[4:]))
    assert found is not None
    assert torch.equal(found, x[index])


def test_other_indices_are_left_to_torch() -> None:
    x = torch.rand(4, 5)
    for index in (1, (0, 2), ..., slice(1, 3), x > 0.5, torch.tensor([0, 1]), [0, 1], None, True):
        assert read_at(x, index) is None
        assert not write_at(x, index, 0.0)
    assert not write_at(x, (slice(None), torch.tensor(1)), 0.0)
    assert not write_at(x, slice(torch.tensor(0), torch.tensor(3), 2), 0.0)


def test_experts() -> None:
    experts = nn.ModuleList(nn.Linear(3, 2) for _ in range(4))
    told: list[int] = []
    x = torch.rand(5, 3)
    with gathered_experts(told.append):
        for i in (0, 3, -1):
            assert torch.equal(experts[torch.tensor(i)](x), experts[i](x))
    assert told == [4, 4, 4]
    assert experts[torch.tensor(1)] is experts[1]  # as before, elsewhere
