"""search_space: what can be chosen, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distillc.network import KEEP, Cost, Network
from distillc.search.space import search_space
from tests.passes.toy import toy_network


def measured() -> Network:
    """Two blocks of 80 kMACs and 4 ms, their attention 30; surrogates of 10 and 1.5 ms."""
    net = toy_network()
    blocks = tuple(
        replace(each, cost=Cost(0, 80_000), attention_cost=Cost(0, 30_000), latency_ms=4.0)
        for each in net.blocks
    )
    candidates = {
        name: tuple(
            replace(each, cost=Cost(0, 10_000), latency_ms=1.5, fidelity=0.2) for each in found
        )
        for name, found in net.candidates.items()
    }
    profile = {"profile": {"rest_ms": 2.0}}
    return net.with_(blocks=blocks, candidates=candidates, metrics=profile)


@pytest.mark.parametrize(
    ("objective", "whole", "block", "attention"),
    [("macs", None, 70e-6, 20e-6), ("transformers", 2, 1, 1), ("latency", 10, 2.5, 2.5)],
)
def test_costs(objective: str, whole: float | None, block: float, attention: float) -> None:
    space = search_space(measured(), objective)
    if whole is not None:
        assert space.cost(space.keep) == whole
    for label, saved in (("toy", block), ("toy@attention", attention)):
        choice = space.choice({"blocks.0": label, "blocks.1": KEEP})
        assert space.cost(space.keep) - space.cost(choice) == pytest.approx(saved)


def test_nothing_costs_nothing() -> None:
    space = search_space(measured(), "transformers")
    everything = space.choice({"blocks.0": "toy", "blocks.1": "toy"})
    assert 0 < space.cost(everything) < 1e-3


def test_choices_and_decisions_are_the_same() -> None:
    space = search_space(measured(), "macs", keep=("blocks.0",), replace={"blocks.1": "toy"})
    decisions = {"blocks.0": "toy@attention", "blocks.1": KEEP}
    choice = space.choice(decisions)
    assert space.decisions(choice) == decisions
    assert not space.allows(choice)
    assert space.allows(space.choice({"blocks.0": KEEP, "blocks.1": "toy"}))
