"""Where in a checkpoint the weights are, however it is wrapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distillc.errors import CheckpointError, UsageError
from distillc.frontend.weights import AVERAGED, WRAPPERS, find_state

PATH = Path("x.pth")


def state(value: float = 0.0) -> dict[str, torch.Tensor]:
    return {"conv.weight": torch.full((2, 2), value), "conv.bias": torch.ones(2)}


def found(content: Any, key: str | None = None) -> float:
    """Return the number by which a state dict is known."""
    tensors, _ = find_state(content, PATH, key)
    assert tensors.keys() == state().keys()
    return tensors["conv.weight"].unique().item()


@given(st.lists(st.text(min_size=1, max_size=5), max_size=4))
def test_the_only_dict_of_tensors_is_the_state_dict(keys: list[str]) -> None:
    content: dict[str, Any] = state(3)
    for key in keys:
        content = {key: content, "epoch": 3, "rng": torch.get_rng_state(), "best": torch.ones(1)}
    tensors, notes = find_state(content, PATH)
    assert tensors["conv.weight"].unique().item() == 3
    assert notes == []


def test_an_optimiser_holds_no_state_dict() -> None:
    moments = {0: {"step": torch.ones(1), "exp_avg": torch.ones(2, 2)}}
    content = {"mine": state(3), "optimizer": {"state": moments, "param_groups": [{"lr": 1}]}}
    assert found(content) == 3


@pytest.mark.parametrize("averaged", AVERAGED)
def test_the_average_is_preferred_and_the_rest_named(averaged: str) -> None:
    content = {"model": {"net": state(1), averaged: state(2)}, "netD": state(3)}
    tensors, notes = find_state(content, PATH)
    assert tensors["conv.weight"].unique().item() == 2
    assert len(notes) == 1
    assert f"under model.{averaged}; left out:" in notes[0]
    assert "netD (2 tensors)" in notes[0]


def test_known_names_come_in_their_order() -> None:
    assert WRAPPERS.index("params_ema") < WRAPPERS.index("params") < WRAPPERS.index("model")
    assert found({"netD": state(1), "netG": state(2)}) == 2


def test_several_unknown_ones_are_listed_and_chosen_by_key() -> None:
    content = {"teacher": state(1), "student": {"weights of it": state(2)}}
    with pytest.raises(CheckpointError, match="several state dicts") as caught:
        find_state(content, PATH)
    assert "teacher (2 tensors), student.weights of it (2 tensors)" in str(caught.value)
    assert "--weights-key" in str(caught.value.hint)
    assert found(content, "teacher") == 1
    assert found(content, "student.weights of it") == 2


def test_a_key_may_end_in_a_prefix_of_names_or_be_the_root() -> None:
    one, two = state(1), state(2)
    inner = {f"one.{name}": value for name, value in one.items()}
    inner |= {f"one.two.{name}": value for name, value in two.items()}
    assert found({"state_dict": inner}, "state_dict.one.two") == 2
    assert found(inner, "one.two") == 2
    assert found({**state(3), "params": state(1)}, ".") == 3


@pytest.mark.parametrize("key", ["ghost", "", "teacher.ghost", "teacher.conv.weight", "epoch.x"])
def test_a_wrong_key_lists_what_there_is(key: str) -> None:
    with pytest.raises(UsageError, match="no weights under") as caught:
        find_state({"teacher": state(), "epoch": 3}, PATH, key)
    assert "teacher (2 tensors)" in str(caught.value)


def test_arrays_of_numpy_are_weights_too() -> None:
    arrays = {name: value.numpy() for name, value in state(4).items()}
    assert found({"best": np.ones(1), "net": arrays}) == 4


def test_what_is_not_a_tensor_is_named() -> None:
    tensors, notes = find_state({**state(), "version": 2, "arch": "net"}, PATH)
    assert tensors.keys() == state().keys()
    assert notes == ["left out, not tensors: version, arch"]


def test_dicts_that_hold_each_other_end() -> None:
    content: dict[str, Any] = {"a": {}, "b": {}}
    content["a"]["b"] = content["b"]["a"] = content["a"]["root"] = content
    with pytest.raises(CheckpointError, match="no state dict"):
        find_state(content, PATH)
    content["b"]["mine"] = state(5)
    assert found(content) == 5
