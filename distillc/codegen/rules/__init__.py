"""CPU schedule rules, one kernel family a file."""

from __future__ import annotations

from distillc.codegen.rules.base import Rule
from distillc.codegen.rules.contraction import schedule_contraction
from distillc.codegen.rules.convolution import schedule_convolution
from distillc.codegen.rules.elementwise import schedule_elementwise
from distillc.codegen.rules.fallback import schedule_fallback

RULES: tuple[Rule, ...] = (
    schedule_elementwise,
    schedule_contraction,
    schedule_convolution,
    schedule_fallback,
)
