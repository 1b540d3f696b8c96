"""What is asked of the hybrid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from distillc.checks import NOT_NEGATIVE, POSITIVE, check_real
from distillc.errors import UsageError
from distillc.surrogates.specs import canonical_label


@dataclass(frozen=True)
class Limits:
    """What is asked of the hybrid.

    Attributes:
        max_drop: Largest mean loss of PSNR against the teacher, dB, on images that neither
            training nor the search nor healing saw.
        min_speedup: Smallest compiled speed-up against the compiled teacher.
        max_latency_ms: Largest compiled latency where it is measured, milliseconds.
        keep: Blocks that stay.
        replace: Block -> the label of the surrogate that replaces it.
        search_drop: Largest loss on the search's images, before healing; `max_drop` by default.

    Raises:
        UsageError: A number is out of range.
    """

    max_drop: float | None = None
    min_speedup: float | None = None
    max_latency_ms: float | None = None
    keep: tuple[str, ...] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    search_drop: float | None = None

    def __post_init__(self) -> None:
        check_real(NOT_NEGATIVE, max_drop=self.max_drop, search_drop=self.search_drop)
        check_real(POSITIVE, min_speedup=self.min_speedup, max_latency_ms=self.max_latency_ms)

    @property
    def aimed_drop(self) -> float | None:
        """The largest loss that the search accepts, dB."""
        return self.max_drop if self.search_drop is None else self.search_drop

    def among(self, families: Sequence[str]) -> Limits:
        """Return these limits with labels as candidates have them.

        Args:
            families: Labels of the surrogates that are tried.

        Raises:
            UsageError: A label is unknown, or not tried.
        """
        tried = [canonical_label(label) for label in families]
        forced = {block: canonical_label(label) for block, label in self.replace.items()}
        for block, label in forced.items():
            if label not in tried:
                raise UsageError(
                    f"{label!r} is not among the families tried",
                    where=f"--replace {block}={label}",
                    hint=f"tried are {', '.join(tried)}; name others with --family",
                )
        return replace(self, replace=forced)


NONE = Limits()
"""Nothing is asked."""
