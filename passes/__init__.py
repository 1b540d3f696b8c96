"""The passes, in the order in which they run. Each file holds one."""

from distillc.passes.apply_replacements import ApplyReplacements
from distillc.passes.audit_operators import AuditOperators
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids
from distillc.passes.find_attention import FindAttention
from distillc.passes.heal import Heal
from distillc.passes.profile_blocks import ProfileBlocks
from distillc.passes.search_replacements import SearchReplacements
from distillc.passes.synthesize_surrogates import SynthesizeSurrogates
from distillc.passes.trace import Trace

__all__ = [
    "ApplyReplacements",
    "AuditOperators",
    "DistillBlocks",
    "DistillHybrids",
    "FindAttention",
    "Heal",
    "ProfileBlocks",
    "SearchReplacements",
    "SynthesizeSurrogates",
    "Trace",
]
