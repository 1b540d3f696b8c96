"""LossModel: sums are learnt from few hybrids, and what is unknown is known to be so."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from distillc.network import KEEP
from distillc.search.predictor import LossModel
from distillc.search.space import Choice, Option, Space


def made_up(blocks: int = 8, seed: int = 0) -> tuple[Space, dict[Choice, float]]:
    """A space of three surrogates a block, and what each surrogate loses alone."""
    random = np.random.default_rng(seed)
    fidelity = random.uniform(0.05, 0.5, (blocks, 1)) * random.uniform(0.9, 1.1, (blocks, 3))
    cost = random.uniform(3, 10, (blocks, 1)) * np.array([1, 0.6, 0.5, 0.3])
    options = tuple(
        (
            Option(KEEP, float(cost[block, 0]), 0.0),
            *(
                Option(f"s{n}", float(cost[block, n + 1]), float(fidelity[block, n]))
                for n in range(3)
            ),
        )
        for block in range(blocks)
    )
    names = tuple(f"b{block}" for block in range(blocks))
    space = Space(names, options, (frozenset(range(4)),) * blocks, 20.0)
    rates = random.gamma(2, 0.2, (blocks, 1)) * random.uniform(0.9, 1.1, (blocks, 3))
    losses = {}
    for block in range(blocks):
        for number in range(1, 4):
            choice = (*space.keep[:block], number, *space.keep[block + 1 :])
            losses[choice] = float((fidelity * rates)[block, number - 1])
    return space, losses


def summed(space: Space, alone: dict[Choice, float], choice: Choice) -> float:
    parts = [
        (*space.keep[:block], number, *space.keep[block + 1 :])
        for block, number in enumerate(choice)
        if number
    ]
    return sum(alone[part] for part in parts)


def hybrids(space: Space, count: int, seed: int) -> list[Choice]:
    random = np.random.default_rng(seed)
    return [tuple(map(int, random.integers(0, 4, len(space.blocks)))) for _ in range(count)]


def test_learns_sums() -> None:
    space, alone = made_up()
    known = [space.keep, *hybrids(space, 40, 1)]
    model = LossModel(space, known, [summed(space, alone, each) for each in known])
    new = hybrids(space, 100, 2)
    wanted = np.array([summed(space, alone, each) for each in new])
    found = np.array([model.mean().of(each) for each in new])
    assert np.mean(np.abs(found - wanted)) < 0.05 * np.mean(wanted)


def test_one_hybrid_says_something_of_the_others() -> None:
    space, alone = made_up()
    everything = (1,) * len(space.blocks)
    total = summed(space, alone, everything)
    model = LossModel(space, [space.keep, everything], [0.0, total])
    assert model.mean().of(everything) == pytest.approx(total, rel=0.1)
    assert model.mean().of(space.keep) == 0
    assert 0 < model.mean().of((1, *space.keep[1:])) < total


def test_what_was_seen_is_less_uncertain() -> None:
    space, alone = made_up()
    everything = (1,) * len(space.blocks)
    seen, unseen = (1, *space.keep[1:]), (*space.keep[:-1], 3)
    known = [space.keep, everything, seen]
    model = LossModel(space, known, [summed(space, alone, each) for each in known])
    random = np.random.default_rng(0)
    draws = [model.sample(random) for _ in range(200)]
    spread = {each: np.std([drawn.of(each) for drawn in draws]) for each in (seen, unseen)}
    assert spread[seen] < 0.3 * spread[unseen]


def test_neighbours_are_learnt() -> None:
    space, alone = made_up()

    def loss(choice: Choice) -> float:
        pairs = sum(a > 0 and b > 0 for a, b in pairwise(choice))
        return summed(space, alone, choice) + 0.02 * pairs

    known = [space.keep, *hybrids(space, 80, 1)]
    model = LossModel(space, known, [loss(each) for each in known])
    everything = (2,) * len(space.blocks)
    assert model.mean().of(everything) == pytest.approx(loss(everything), rel=0.03)
