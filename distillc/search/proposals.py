"""Which hybrid to evaluate next."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from distillc.search.predictor import Losses, LossModel
from distillc.search.space import Choice, Space

BINS = 256
"""Steps of cost that the exact front is computed in."""
ATTEMPTS = 8
"""Fronts that are drawn when all of one was evaluated before."""


def first_choices(space: Space) -> list[Choice]:
    """Return what is evaluated first: nothing replaced, everything replaced, each block by itself.

    Everything is replaced by the cheapest surrogates and by the most faithful, a single block by
    its most faithful, in the order of error for cost saved.
    """
    keep = space.keep
    best = tuple(
        min(range(1, len(options)), key=lambda n: options[n].fidelity, default=0)
        for options in space.options
    )
    cheapest = tuple(
        min(range(len(options)), key=lambda n: options[n].cost) for options in space.options
    )
    alone = [
        (block, (*keep[:block], number, *keep[block + 1 :]))
        for block, number in enumerate(best)
        if number
    ]

    def error_per_saving(item: tuple[int, Choice]) -> float:
        block, choice = item
        saved = space.cost(keep) - space.cost(choice)
        return space.options[block][choice[block]].fidelity / saved if saved > 0 else float("inf")

    ordered = [choice for _, choice in sorted(alone, key=error_per_saving)]
    return list(dict.fromkeys([keep, best, cheapest, *ordered]))


def predicted_front(space: Space, losses: Losses) -> list[Choice]:
    """Return the hybrids that lose least at every cost, by dynamic programming over the blocks.

    The state is the cost so far, in `BINS` steps, and whether the last block was replaced.
    """
    costs = [np.array([option.cost for option in options]) for options in space.options]
    span = sum(float(each.max() - each.min()) for each in costs) or 1.0
    steps = [
        np.rint((each - each.min()) / span * (BINS - len(costs))).astype(int) for each in costs
    ]
    best = np.full((2, BINS), np.inf)
    best[0, 0] = 0.0
    trail = []
    for own, shifts, pair, allowed in zip(
        losses.options, steps, losses.pairs, space.allowed, strict=True
    ):
        reached = np.full((2, BINS), np.inf)
        came = np.zeros((2, BINS, 2), dtype=int)  # number of the option, state before
        for number in sorted(allowed):
            now, shift = int(number > 0), shifts[number]
            for before in (0, 1):
                value = best[before, : BINS - shift] + own[number] + pair * now * before
                better = value < reached[now, shift:]
                reached[now, shift:][better] = value[better]
                came[now, shift:][better] = (number, before)
        trail.append((came, shifts))
        best = reached
    found, lowest = [], np.inf
    for place in range(BINS):
        state = int(np.argmin(best[:, place]))
        if best[state, place] < lowest:
            lowest = best[state, place]
            found.append(_back(trail, state, place))
    return found


def _back(trail: Sequence[tuple[np.ndarray, np.ndarray]], state: int, place: int) -> Choice:
    numbers = []
    for came, shifts in reversed(trail):
        number, before = came[state, place]
        numbers.append(int(number))
        place -= int(shifts[number])
        state = int(before)
    return tuple(reversed(numbers))


def hypervolume(points: Collection[tuple[float, float]], worst: tuple[float, float]) -> float:
    """Return the area between points of (cost, loss), both to be small, and the worst point."""
    area, loss = 0.0, worst[1]
    for cost, own in sorted(points):
        if own < loss and cost < worst[0]:
            area += (worst[0] - cost) * (loss - own)
            loss = own
    return area


def propose(
    space: Space,
    points: dict[Choice, float],
    random: np.random.Generator,
    max_loss: float | None = None,
    max_cost: float | None = None,
) -> Choice | None:
    """Return a hybrid that was not evaluated, None where there is none left.

    1. The loss model is fitted to what was evaluated, and losses are drawn from it (Thompson
       sampling): what is uncertain gets its chance.
    2. Of the front that these losses predict, the hybrid that adds most to the hypervolume of what
       was measured is taken, and any where nothing that is allowed was.
    3. Every other time, where there are limits: the cheapest within the loss, or the best within
       the cost, by the expected losses.
    4. Where a front holds nothing new, others are drawn, and at last a neighbour of a good hybrid.

    Args:
        space: What can be chosen.
        points: Loss in dB of each hybrid evaluated so far; not empty.
        random: Decides; the same state gives the same proposal.
        max_loss: Largest loss that is asked for, dB.
        max_cost: Largest cost that is asked for.
    """
    model = LossModel(space, list(points), list(points.values()))
    worst = (max(map(space.cost, points)), max(points.values()))
    measured = [(space.cost(each), loss) for each, loss in points.items() if space.allows(each)]
    limited = max_loss is not None or max_cost is not None
    if limited and random.random() < 0.5:
        expected = model.mean()
        new = [each for each in predicted_front(space, expected) if each not in points]
        within = [
            (space.cost(each), expected.of(each), each)
            for each in new
            if (max_cost is None or space.cost(each) <= max_cost)
            and (max_loss is None or expected.of(each) <= max_loss)
        ]
        if within:
            by = 0 if max_loss is not None else 1
            return min(within, key=lambda item: item[by])[2]
    before = hypervolume(measured, worst)
    for _ in range(ATTEMPTS):
        drawn = model.sample(random)
        gains = [
            (hypervolume([*measured, (space.cost(each), loss)], worst), -loss, each)
            for each, loss in ((each, drawn.of(each)) for each in predicted_front(space, drawn))
            if each not in points
        ]
        if gains and (max(gains)[0] > before or not measured):
            return max(gains)[-1]
    return _neighbour(space, points, random)


def _neighbour(
    space: Space, points: dict[Choice, float], random: np.random.Generator
) -> Choice | None:
    """Change one block of a hybrid that was evaluated, the least lossy first."""
    for choice in filter(space.allows, sorted(points, key=lambda each: (points[each], each))):
        for block in random.permutation(len(choice)):
            for number in sorted(space.allowed[block]):
                changed = (*choice[:block], number, *choice[block + 1 :])
                if changed not in points:
                    return changed
    return None
