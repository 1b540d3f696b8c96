"""The passes, in the order in which they run. Each file holds one.

They load on first use: what needs no compiler does not wait for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillc.lazy import loader

if TYPE_CHECKING:
    from distillc.passes.apply_replacements import ApplyReplacements as ApplyReplacements
    from distillc.passes.audit_operators import AuditOperators as AuditOperators
    from distillc.passes.distill_blocks import DistillBlocks as DistillBlocks
    from distillc.passes.distill_hybrids import DistillHybrids as DistillHybrids
    from distillc.passes.find_attention import FindAttention as FindAttention
    from distillc.passes.heal import Heal as Heal
    from distillc.passes.profile_blocks import ProfileBlocks as ProfileBlocks
    from distillc.passes.search_replacements import SearchReplacements as SearchReplacements
    from distillc.passes.synthesize_surrogates import SynthesizeSurrogates as SynthesizeSurrogates
    from distillc.passes.trace import Trace as Trace

_HOME = {
    "ApplyReplacements": "apply_replacements",
    "AuditOperators": "audit_operators",
    "DistillBlocks": "distill_blocks",
    "DistillHybrids": "distill_hybrids",
    "FindAttention": "find_attention",
    "Heal": "heal",
    "ProfileBlocks": "profile_blocks",
    "SearchReplacements": "search_replacements",
    "SynthesizeSurrogates": "synthesize_surrogates",
    "Trace": "trace",
}

__all__ = [*_HOME]

__getattr__ = loader(__name__, _HOME)
