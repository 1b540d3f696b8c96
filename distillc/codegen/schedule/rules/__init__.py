"""CPU schedule rules, one kernel family a file."""

from __future__ import annotations

from typing import NamedTuple

from distillc.codegen.schedule.rules.base import Rule
from distillc.codegen.schedule.rules.channel_norm import schedule_channel_norm
from distillc.codegen.schedule.rules.contraction import schedule_contraction
from distillc.codegen.schedule.rules.convolution import schedule_convolution
from distillc.codegen.schedule.rules.elementwise import schedule_elementwise
from distillc.codegen.schedule.rules.fallback import schedule_fallback
from distillc.codegen.schedule.rules.gram import schedule_gram
from distillc.codegen.schedule.rules.half import with_half_lanes
from distillc.codegen.schedule.rules.long_sum import schedule_long_sum
from distillc.codegen.schedule.rules.rebuilt import (
    schedule_attention,
    schedule_axial_scan,
    schedule_selective_scan,
    schedule_winograd,
)
from distillc.codegen.schedule.rules.row_reduction import schedule_row_reduction


class Entry(NamedTuple):
    """A rule and the id that records know it by; an id never changes and is never used again."""

    id: str
    schedule: Rule


RULES = (
    # They have their loops already: no other rule may take them.
    Entry("selective_scan", schedule_selective_scan),
    Entry("axial_scan", schedule_axial_scan),
    Entry("attention", schedule_attention),
    Entry("winograd", schedule_winograd),
    # Reductions are none of its matter, so what it takes no later rule needs.
    Entry("schedule_elementwise", with_half_lanes(schedule_elementwise)),
    # Products by what is contiguous. A sum along the rows of both comes before one along columns,
    # a long sum of few results before tiles of results: each is a product that the next takes too.
    Entry("schedule_gram", with_half_lanes(schedule_gram)),
    Entry("schedule_long_sum", with_half_lanes(schedule_long_sum)),
    Entry("schedule_contraction", with_half_lanes(schedule_contraction)),
    # Windows; one of a single pixel is a contraction.
    Entry("schedule_convolution", with_half_lanes(schedule_convolution)),
    # Reductions without a product: along the contiguous axis, then at every pixel.
    Entry("schedule_row_reduction", with_half_lanes(schedule_row_reduction)),
    Entry("schedule_channel_norm", with_half_lanes(schedule_channel_norm)),
    # Takes anything.
    Entry("schedule_fallback", with_half_lanes(schedule_fallback)),
)
"""Tried in order; the first that answers wins."""
