"""How much work a conversion does: presets by name."""

from __future__ import annotations

from dataclasses import dataclass

from distillc.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """The effort of one conversion.

    Attributes:
        name: The name that `--budget` takes.
        families: Surrogates tried on every block, as labels (`conv`, `scan1@attention`).
        distill_steps: Training steps of every surrogate.
        distill_batch: Images a step.
        patch: Edge of a training image, pixels.
        objective: The search's cost: `"latency"` (measured block by block) or `"macs"`.
        trials: Hybrids that the search evaluates.
        search_images: Held-out images each is evaluated on.
        search_crop: Their edge, pixels.
        heal_steps: Fine-tuning steps of the chosen hybrid; 0 leaves it out.
        heal_batch: Images a step.
        verify_images: Images that the bundle is run on, at least 1; the first is its reference.
    """

    name: str
    families: tuple[str, ...]
    distill_steps: int
    distill_batch: int
    patch: int
    objective: str
    trials: int
    search_images: int
    search_crop: int
    heal_steps: int
    heal_batch: int
    verify_images: int


BUDGETS = {
    each.name: each
    for each in (
        Budget("smoke", ("conv", "scan1"), 10, 4, 48, "macs", 12, 2, 96, 0, 4, 1),
        Budget("quick", ("conv", "scan1", "scan2"), 250, 8, 64, "latency", 60, 4, 128, 150, 8, 2),
        Budget("full", ("conv", "scan1", "scan2"), 1000, 8, 64, "latency", 200, 8, 128, 1500, 8, 2),
    )
}


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
