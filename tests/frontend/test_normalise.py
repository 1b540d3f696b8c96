"""Each rule by itself: what it changes, what it leaves, what it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from distillc.frontend.normalise import AROUND, COUNTERS, about_prefix, normalise, views

NAMES = ("body.0.weight", "body.0.bias", "body.model.scale")


def state(prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.full((2,), float(at)) for at, name in enumerate(NAMES)}


def same(found: dict[str, Tensor], prefix: str = "") -> bool:
    wanted = state(prefix)
    return list(found) == list(wanted) and all(torch.equal(found[k], wanted[k]) for k in wanted)


def test_a_plain_state_dict_is_left_alone() -> None:
    found, notes = normalise(state())
    assert same(found)
    assert notes == []


@given(st.lists(st.sampled_from([*AROUND, "module"]), min_size=1, max_size=4))
def test_what_wraps_the_whole_network_is_taken_off(around: list[str]) -> None:
    """`module.` of parallel training once, as no more is put there."""
    if around.count("module") > 1:
        around = [each for each in around if each != "module"] or ["module"]
    found, notes = normalise(state(".".join([*around, ""])))
    assert same(found)
    assert len(notes) == len({each == "module" for each in around})
    assert all(f"{'.'.join(around[-1:])}." in note or "renamed" in note for note in notes)


@pytest.mark.parametrize("around", AROUND)
def test_what_wraps_a_part_is_taken_off(around: str) -> None:
    parts = {name.replace("body.0.", f"body.0.{around}."): v for name, v in state().items()}
    found, notes = normalise(parts)
    assert same(found)
    assert f"body.0.{around}.weight" in notes[0]


def test_two_tensors_never_get_one_name() -> None:
    both = {**state(), **state("_orig_mod.")}
    found, notes = normalise(both)
    assert list(found) == list(both)
    assert notes == []


def test_counts_of_a_profiler() -> None:
    extra = {
        name: torch.zeros(1, dtype=torch.float64) for name in ("total_ops", "body.total_params")
    }
    found, notes = normalise({**extra, **state()})
    assert same(found)
    assert notes == ["left out, a profiler's counts and not weights: total_ops, body.total_params"]


@pytest.mark.parametrize("counter", [*COUNTERS, "whatever"])
def test_counters_beside_the_weights(counter: str) -> None:
    found, notes = normalise({**state("module."), counter: torch.tensor(7)})
    assert same(found)
    assert counter in notes[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", torch.tensor(0.5)),
        ("table", torch.arange(4)),
        ("norm.step", torch.tensor(3)),
        ("body.step", torch.tensor([0.5])),
    ],
)
def test_what_may_be_a_weight_stays(name: str, value: Tensor) -> None:
    found, notes = normalise({name: value})
    assert torch.equal(found[name], value)
    assert notes == []


def prefixes(state: dict[str, Tensor]) -> list[str]:
    return [prefix for prefix, _ in views(state)]


def test_views_are_as_it_is_then_the_averages_then_the_rest() -> None:
    names = ("conv.weight", "norm.bias")
    mixed = {f"{head}.{name}": torch.ones(2) for head in ("net", "net_g_ema") for name in names}
    mixed["loss.weight"] = torch.ones(3, 3)
    assert prefixes(mixed) == ["", "net_g_ema.", "net."]
    assert all(sorted(inner) == sorted(names) for prefix, inner in views(mixed) if prefix)


def test_views_of_prefixes_after_each_other_and_of_one_that_all_have() -> None:
    mine = {"mine.conv.weight": torch.ones(1), "mine.norm.weight": torch.ones(1)}
    assert prefixes(mine) == ["", "mine."]
    assert prefixes({**mine, "other.x": torch.ones(1)}) == [""]
    assert prefixes({f"model.net.{name}": value for name, value in mine.items()}) == [
        *("", "model.", "model.net.", "model.net.mine.")
    ]


def test_what_is_said_of_a_prefix() -> None:
    assert about_prefix(state(), "") == []
    (note,) = about_prefix({**state("net."), "loss.weight": torch.ones(1)}, "net.")
    assert note == "the weights are those under the prefix net.; left out: loss.weight"
