"""A model of what hybrids lose, learnt from those that were evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distillc.search.space import Choice, Space

Array = NDArray[np.float64]

NOISE_DB, NOISE_SHARE = 0.002, 0.03
"""What the model cannot explain: so many dB, and this share of a hybrid's loss."""
SPREAD = 0.3
"""How far one surrogate strays from what its block and its fidelity suggest, relatively."""
NEIGHBOURS = 0.1
"""How much two replaced neighbours lose beside the sum of both, relative to one of them."""


@dataclass(frozen=True)
class Losses:
    """Losses of options and of pairs of neighbours, dB.

    Attributes:
        options: For each block, the loss of each of its options; 0 for `KEEP`.
        pairs: For each block, what is added where it and the block before it are replaced.
    """

    options: tuple[Array, ...]
    pairs: Array

    def of(self, choice: Choice) -> float:
        """Return the loss of a hybrid."""
        total = sum(own[number] for own, number in zip(self.options, choice, strict=True))
        gone = replaced(choice)
        return float(total + self.pairs[1:] @ (gone[1:] * gone[:-1]))


def replaced(choice: Choice) -> Array:
    """Return 1 for each block that is replaced, 0 for those that stay."""
    return np.array([float(number > 0) for number in choice])


class LossModel:
    """Bayesian linear regression of the loss in dB.

    A hybrid loses the sum of what each surrogate loses by itself, and something for neighbours that
    are both replaced. A surrogate's loss is its fidelity times a rate of its block, times a factor
    of its own; the rates start from what everything replaced loses. On a Restormer of 13 blocks the
    sum explains measured losses to 3 % (`docs/measurements/search.md`).

    Args:
        space: What can be chosen.
        choices: Hybrids that were evaluated.
        losses: What each loses against the network without replacements, dB.
    """

    def __init__(self, space: Space, choices: Sequence[Choice], losses: Sequence[float]) -> None:
        self._space = space
        self._columns = [len(options) for options in space.options]
        features = np.stack([self._features(choice) for choice in choices])
        values = np.array(losses)
        rate = self._first_rate(choices, values)
        count = len(space.blocks)
        fidelity = np.mean([o.fidelity for options in space.options for o in options] or [1.0])
        deviation = np.concatenate(
            [
                np.full(count, rate),
                np.full(sum(self._columns), SPREAD * rate),
                np.full(count, NEIGHBOURS * rate * float(fidelity)),
            ]
        )
        prior = np.concatenate([np.full(count, rate), np.zeros(len(deviation) - count)])
        noise = NOISE_DB + NOISE_SHARE * np.abs(values)
        scaled = features / noise[:, None]
        precision = np.diag(1 / deviation**2) + scaled.T @ scaled
        residual = (values - features @ prior) / noise
        self._factor = np.linalg.cholesky(precision)
        self._mean = prior + np.linalg.solve(precision, scaled.T @ residual)

    def mean(self) -> Losses:
        """Return the expected losses."""
        return self._losses(self._mean)

    def sample(self, random: np.random.Generator) -> Losses:
        """Return losses drawn from what is still possible."""
        drawn = random.standard_normal(len(self._mean))
        return self._losses(self._mean + np.linalg.solve(self._factor.T, drawn))

    def _first_rate(self, choices: Sequence[Choice], values: Array) -> float:
        """Return loss per fidelity, over the hybrid with the most of it."""
        totals = [
            sum(options[n].fidelity for options, n in zip(self._space.options, each, strict=True))
            for each in choices
        ]
        most = int(np.argmax(totals))
        return max(1e-3, float(values[most]) / totals[most]) if totals[most] else 1.0

    def _features(self, choice: Choice) -> Array:
        """Return fidelities by block, the same by option, and pairs of replaced neighbours."""
        own = [options[n].fidelity for options, n in zip(self._space.options, choice, strict=True)]
        each = [np.zeros(columns) for columns in self._columns]
        for row, number, fidelity in zip(each, choice, own, strict=True):
            row[number] = fidelity
        gone = replaced(choice)
        pairs = np.concatenate([[0.0], gone[1:] * gone[:-1]])
        return np.concatenate([own, *each, pairs])

    def _losses(self, weights: Array) -> Losses:
        count = len(self._space.blocks)
        factors = np.split(weights[count:-count], np.cumsum(self._columns)[:-1])
        options = tuple(
            np.array([option.fidelity for option in offered]) * (rate + factor)
            for offered, rate, factor in zip(
                self._space.options, weights[:count], factors, strict=True
            )
        )
        return Losses(options, weights[-count:])
