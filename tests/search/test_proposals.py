"""Proposals: the exact front of a sum, new hybrids only, limits respected."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.search.predictor import Losses
from distillc.search.proposals import first_choices, hypervolume, predicted_front, propose
from distillc.search.space import Choice, Space

from .test_predictor import made_up, summed


def losses_of(space: Space, seed: int) -> Losses:
    random = np.random.default_rng(seed)
    options = [np.array([0.0, *random.uniform(0.01, 1, len(o) - 1)]) for o in space.options]
    return Losses(tuple(options), random.normal(0, 0.05, len(space.blocks)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_front_is_that_of_all_hybrids(seed: int) -> None:
    space, _ = made_up(blocks=5, seed=seed)
    losses = losses_of(space, seed)
    every = [(space.cost(c), losses.of(c)) for c in product(range(4), repeat=5)]
    worst = (max(cost for cost, _ in every), max(loss for _, loss in every))
    found = [(space.cost(c), losses.of(c)) for c in predicted_front(space, losses)]
    whole = hypervolume(every, worst)
    assert hypervolume(found, worst) > 0.99 * whole  # costs are rounded to steps


def test_front_keeps_to_what_is_allowed() -> None:
    space, _ = made_up()
    space = replace(space, allowed=(frozenset([2]), frozenset([0]), *space.allowed[2:]))
    front = predicted_front(space, losses_of(space, 3))
    assert len(front) > 3
    assert {choice[:2] for choice in front} == {(2, 0)}


def test_first_choices() -> None:
    space, _ = made_up()
    keep, everything, cheapest, *alone = first_choices(space)
    assert keep == (0,) * 8
    assert everything == tuple(
        min(range(1, 4), key=lambda n: options[n].fidelity) for options in space.options
    )
    assert space.cost(cheapest) == min(map(space.cost, product(range(4), repeat=8)))
    assert sorted(sum(n > 0 for n in choice) for choice in alone) == [1] * 8
    assert {tuple(np.maximum.reduce(alone))} == {everything}


def test_what_alone_is_allowed_is_proposed_however_much_it_loses() -> None:
    space, alone = made_up()
    points = {each: summed(space, alone, each) for each in first_choices(space)}
    worst = max(range(4**8), key=lambda n: summed(space, alone, _choice(n)))
    space = replace(space, allowed=tuple(frozenset([n]) for n in _choice(worst)))
    assert propose(space, points, np.random.default_rng(0)) == _choice(worst)


def _choice(number: int) -> Choice:
    return tuple(number // 4**block % 4 for block in range(8))


def searched(space: Space, alone: dict[Choice, float], trials: int, **limits: float) -> set[Choice]:
    points: dict[Choice, float] = {}
    for number in range(trials):
        first = first_choices(space)
        random = np.random.default_rng(number)
        choice = first[number] if number < len(first) else propose(space, points, random, **limits)
        assert choice is not None
        assert choice not in points
        points[choice] = summed(space, alone, choice)
    return set(points)


def front(space: Space, alone: dict[Choice, float], some: set[Choice]) -> float:
    points = [(space.cost(each), summed(space, alone, each)) for each in some]
    everything = first_choices(space)[1]
    return hypervolume(points, (space.cost(space.keep), summed(space, alone, everything)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finds_more_than_chance(seed: int) -> None:
    space, alone = made_up(seed=seed)
    found = front(space, alone, searched(space, alone, 40))
    random = np.random.default_rng(seed)
    chance = {tuple(map(int, random.integers(0, 4, 8))) for _ in range(400)}
    assert found > front(space, alone, chance | {space.keep})


def test_limits_are_aimed_at() -> None:
    space, alone = made_up()
    limit = 0.7 * space.cost(space.keep)
    found = searched(space, alone, 40, max_cost=limit)
    best = min(summed(space, alone, each) for each in found if space.cost(each) <= limit)
    every = [each for each in product(range(4), repeat=8) if space.cost(each) <= limit]
    exact = min(summed(space, alone, each) for each in every)
    assert best == pytest.approx(exact, rel=0.02)


def test_nothing_is_left_at_last() -> None:
    space, alone = made_up(blocks=2)
    points = {each: summed(space, alone, each) for each in product(range(4), repeat=2)}
    assert propose(space, points, np.random.default_rng(0)) is None
    gone = points.popitem()[0]
    assert propose(space, points, np.random.default_rng(0)) == gone


def test_hypervolume() -> None:
    assert hypervolume([(1, 3), (2, 1), (2, 2)], (4, 4)) == 3 * 1 + 2 * 2
    assert hypervolume([(5, 0), (1, 5)], (4, 4)) == 0
