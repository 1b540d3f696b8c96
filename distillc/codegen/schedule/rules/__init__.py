"""CPU schedule rules, one kernel family a file."""

from __future__ import annotations

from distillc.codegen.schedule.rules.base import Rule
from distillc.codegen.schedule.rules.channel_norm import schedule_channel_norm
from distillc.codegen.schedule.rules.contraction import schedule_contraction
from distillc.codegen.schedule.rules.convolution import schedule_convolution
from distillc.codegen.schedule.rules.elementwise import schedule_elementwise
from distillc.codegen.schedule.rules.fallback import schedule_fallback
from distillc.codegen.schedule.rules.gram import schedule_gram
from distillc.codegen.schedule.rules.half import with_half_lanes
from distillc.codegen.schedule.rules.long_sum import schedule_long_sum
from distillc.codegen.schedule.rules.row_reduction import schedule_row_reduction

RULES: tuple[Rule, ...] = tuple(
    with_half_lanes(rule)
    for rule in (
        schedule_elementwise,
        schedule_gram,
        schedule_long_sum,
        schedule_contraction,
        schedule_convolution,
        schedule_row_reduction,
        schedule_channel_norm,
        schedule_fallback,
    )
)
