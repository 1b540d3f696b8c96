"""CPU schedule rules, one kernel family a file."""

from __future__ import annotations

from distillc.codegen.rules.base import Rule
from distillc.codegen.rules.channel_norm import schedule_channel_norm
from distillc.codegen.rules.contraction import schedule_contraction
from distillc.codegen.rules.convolution import schedule_convolution
from distillc.codegen.rules.elementwise import schedule_elementwise
from distillc.codegen.rules.fallback import schedule_fallback
from distillc.codegen.rules.gram import schedule_gram
from distillc.codegen.rules.half import with_half_lanes
from distillc.codegen.rules.long_sum import schedule_long_sum
from distillc.codegen.rules.row_reduction import schedule_row_reduction

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
