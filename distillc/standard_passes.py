"""The pipeline of a conversion."""

from __future__ import annotations

from pathlib import Path

from distillc.budgets import TIMED_THREADS, Budget
from distillc.codegen.tuning.time_modules import HERE, Meter
from distillc.limits import NONE, Limits
from distillc.passes import (
    ApplyReplacements,
    AuditOperators,
    DistillBlocks,
    DistillHybrids,
    FindAttention,
    Heal,
    ProfileBlocks,
    SearchReplacements,
    SynthesizeSurrogates,
    Trace,
)
from distillc.pipeline import Pass


def conversion_passes(
    budget: Budget,
    data: Path | None,
    task: str,
    limits: Limits = NONE,
    meter: Meter = HERE,
) -> list[Pass]:
    """Return the passes of a conversion, in order.

    Args:
        budget: How much work each does.
        data: Folder of clean images or of pairs; scikit-image's photographs by default.
        task: How clean images are degraded.
        limits: What is asked of the hybrid.
        meter: Where latency is measured.
    """
    passes: list[Pass] = [
        Trace(),
        AuditOperators(),
        FindAttention(),
        SynthesizeSurrogates(budget.families),
        DistillBlocks(data, task, budget.distill_steps, budget.distill_batch, budget.patch),
    ]
    if budget.hybrid_steps:
        passes.append(
            DistillHybrids(data, task, budget.hybrid_steps, budget.distill_batch, budget.patch)
        )
    if budget.objective == "latency":
        passes.append(ProfileBlocks(TIMED_THREADS, device=meter.device, target=meter.target))
    passes += [
        SearchReplacements(
            data,
            task,
            objective=budget.objective,
            trials=budget.trials,
            images=budget.search_images,
            crop=budget.search_crop,
            max_drop=limits.aimed_drop,
            min_speedup=limits.min_speedup,
            max_cost=limits.max_latency_ms,
            keep=limits.keep,
            replace=limits.replace,
            drop_option="--max-drop" if limits.search_drop is None else "--search-drop",
        ),
        ApplyReplacements(),
    ]
    if budget.heal_steps:
        passes.append(
            Heal(
                data,
                task,
                budget.heal_steps,
                budget.heal_batch,
                budget.patch,
                rounds=budget.heal_rounds,
            )
        )
    return passes
