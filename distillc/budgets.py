"""How much work a conversion does: presets by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distillc.errors import UsageError

if TYPE_CHECKING:  # the command line lists budgets, and does not wait for torch
    from distillc.network import Network

TIMED_THREADS = 2
"""Threads of every latency that a conversion measures."""


@dataclass(frozen=True)
class Budget:
    """The effort of one conversion.

    Attributes:
        name: The name that `--budget` takes.
        families: Surrogates tried on every block, as labels (`conv`, `mamba@attention`).
        distill_steps: Training steps of every surrogate.
        distill_batch: Images a step.
        hybrid_steps: Training steps of all surrogates together, in random hybrids; 0 leaves it out.
        patch: Edge of a training image, pixels.
        objective: The search's cost: `"latency"` (measured block by block) or `"macs"`.
        trials: Hybrids that the search evaluates.
        search_images: Held-out images each is evaluated on.
        search_crop: Their edge, pixels.
        heal_steps: Fine-tuning steps of a round of the chosen hybrid; 0 leaves it out.
        heal_rounds: At most so many rounds, each twice as long as the last, while the hybrid
            is well behind its teacher.
        heal_batch: Images a step.
        test_images: At most so many images, which nothing saw, on which the quality is measured.
        verify_images: Images that the bundle is run on, at least 1; the first is its reference.
    """

    name: str
    families: tuple[str, ...]
    distill_steps: int
    distill_batch: int
    hybrid_steps: int
    patch: int
    objective: str
    trials: int
    search_images: int
    search_crop: int
    heal_steps: int
    heal_rounds: int
    heal_batch: int
    test_images: int
    verify_images: int

    def fitting(self, net: Network) -> Budget:
        """Return the budget with training and search images of a size that the network takes."""
        patch, crop = (net.window(edge)[0] for edge in (self.patch, self.search_crop))
        return replace(self, patch=patch, search_crop=crop)


_SMOKE = Budget(
    "smoke",
    families=("conv", "mamba:values=50,width=50"),
    distill_steps=10,
    distill_batch=4,
    hybrid_steps=0,
    patch=48,
    objective="macs",
    trials=12,
    search_images=2,
    search_crop=96,
    heal_steps=0,
    heal_rounds=1,
    heal_batch=4,
    test_images=4,
    verify_images=1,
)
_QUICK = Budget(
    "quick",
    families=("conv", "ssd:values=50,width=66", "ssd:values=50"),
    distill_steps=250,
    distill_batch=8,
    hybrid_steps=200,
    patch=64,
    objective="latency",
    trials=60,
    search_images=4,
    search_crop=128,
    heal_steps=150,
    heal_rounds=1,
    heal_batch=8,
    test_images=12,
    verify_images=2,
)
_FULL = replace(
    _QUICK,
    name="full",
    families=(
        "conv",
        "conv:width=50",
        "conv:width=200",
        "ssd:values=25,width=50",
        "ssd:values=50,width=66",
        "ssd:values=50",
        "ssd",
        "skip",
    ),
    distill_steps=600,
    hybrid_steps=1500,
    trials=200,
    search_images=8,
    heal_steps=1500,
    heal_rounds=3,
    test_images=48,
)
BUDGETS = {each.name: each for each in (_SMOKE, _QUICK, _FULL)}


def get_budget(budget: str | Budget) -> Budget:
    """Return a budget by name; a `Budget` is returned as it is.

    Raises:
        UsageError: No budget has this name; the message lists the known.
    """
    if isinstance(budget, Budget):
        return budget
    if budget not in BUDGETS:
        raise UsageError(f"unknown budget {budget!r}", hint=f"known budgets: {', '.join(BUDGETS)}")
    return BUDGETS[budget]
