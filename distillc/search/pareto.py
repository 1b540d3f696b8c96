"""Choosing among evaluated hybrids: the Pareto set, and the point that meets what is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from distillc.errors import QualityError
from distillc.network import SearchPoint

KNEE_DROP = 1.0
"""Nobody who asks for no limit wants to lose more than this, dB."""


def pareto_set(points: Iterable[SearchPoint]) -> tuple[SearchPoint, ...]:
    """Return the points that no other beats in both PSNR and cost, cheapest first."""
    front: list[SearchPoint] = []
    for point in sorted(points, key=lambda each: (each.cost, -each.psnr)):
        if not front or point.psnr > front[-1].psnr:
            front.append(point)
    return tuple(front)


def choose_point(
    front: Sequence[SearchPoint],
    teacher: SearchPoint,
    max_drop: float | None = None,
    max_cost: float | None = None,
    drop_option: str = "--max-drop",
) -> SearchPoint:
    """Choose a point of the front.

    1. With a limit of the loss: the cheapest point that meets all limits.
    2. With only a limit of the cost: the best PSNR that meets it.
    3. With neither: of the points that lose at most `KNEE_DROP`, the knee, which is the one
       furthest above the chord between their ends.

    Args:
        front: Pareto set, cheapest first; not empty.
        teacher: The network without replacements.
        max_drop: Largest PSNR loss against the teacher, dB.
        max_cost: Largest cost.
        drop_option: What the message calls the first of the two.

    Raises:
        QualityError: No point meets the limits; the message names the nearest one.
    """
    if max_drop is None and max_cost is None:
        close = [point for point in front if teacher.psnr - point.psnr <= KNEE_DROP]
        return _knee(close or front[-1:])  # rule 3
    drop_limit = math.inf if max_drop is None else max_drop
    cost_limit = math.inf if max_cost is None else max_cost
    feasible = [
        point
        for point in front
        if teacher.psnr - point.psnr <= drop_limit and point.cost <= cost_limit
    ]
    if feasible:
        return feasible[0] if max_drop is not None else feasible[-1]  # rules 1 and 2
    nearest = min(
        front,
        key=lambda point: (
            max(0.0, teacher.psnr - point.psnr - drop_limit) + max(0.0, point.cost / cost_limit - 1)
        ),
    )
    drop, speedup = teacher.psnr - nearest.psnr, teacher.cost / nearest.cost
    options = []
    if drop > drop_limit:
        options.append(f"{drop_option} {drop + 0.005:.2f}")
    if nearest.cost > cost_limit:
        options.append(f"--min-speedup {speedup - 0.005:.2f}")
    raise QualityError(
        f"no hybrid meets the limits; the nearest loses {drop:.3f} dB at {speedup:.2f} times "
        "the teacher's speed",
        hint=f"allow {' '.join(options)}, or spend a larger --budget",
    )


def _knee(front: Sequence[SearchPoint]) -> SearchPoint:
    """Return the point furthest above the line between the ends of the normalised front."""
    first, last = front[0], front[-1]
    width, height = last.cost - first.cost, last.psnr - first.psnr
    if width <= 0 or height <= 0:
        return last
    return max(
        front,
        key=lambda point: (point.psnr - first.psnr) / height - (point.cost - first.cost) / width,
    )
