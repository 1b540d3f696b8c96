"""`--max-drop`: refused above it, with a hint that is sure to be accepted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillc.budgets import get_budget
from distillc.errors import QualityError
from distillc.final_figures import check_quality
from distillc.limits import Limits
from distillc.passes import SearchReplacements
from distillc.runtime.quality import Figures, Quality
from distillc.standard_passes import conversion_passes

DROPS = st.floats(0.001, 3)


def quality(drop: float) -> Quality:
    return Quality(
        images=6,
        origin="photographs",
        window=(256, 256),
        ran="torch",
        hybrid=Figures(31 - drop, 0.88),
        teacher=Figures(31, 0.89),
        drop_db=drop,
    )


def passes(limits: Limits) -> list[tuple[type, dict[str, Any]]]:
    """The passes of a conversion and their options, without what messages call a limit."""
    found = conversion_passes(get_budget("quick"), None, "denoise:sigma=25", limits)
    return [(type(each), {**vars(each), "drop_option": None}) for each in found]


@given(DROPS, DROPS, st.none() | DROPS)
def test_the_hint_is_accepted_and_leads_to_the_same_hybrid(
    drop: float, allowed: float, aimed: float | None
) -> None:
    limits = Limits(max_drop=allowed, search_drop=aimed)
    if drop <= allowed:
        check_quality(quality(drop), limits)
        return
    with pytest.raises(QualityError, match="on 6 images that nothing saw") as caught:
        check_quality(quality(drop), limits)
    hint = re.search(r"with --max-drop (\S+) --search-drop (\S+);", caught.value.hint or "")
    assert hint
    hinted = Limits(max_drop=float(hint[1]), search_drop=float(hint[2]))
    check_quality(quality(drop), hinted)
    assert float(hint[1]) <= drop + 0.011
    assert passes(hinted) == passes(limits)


def test_the_search_has_a_limit_of_its_own() -> None:
    (search,) = (
        each
        for each in conversion_passes(
            get_budget("quick"), None, "denoise", Limits(max_drop=0.1, search_drop=0.3)
        )
        if isinstance(each, SearchReplacements)
    )
    assert (search.max_drop, search.drop_option) == (0.3, "--search-drop")
    with pytest.raises(QualityError):
        check_quality(quality(0.2), Limits(max_drop=0.1, search_drop=0.3))
    check_quality(quality(0.2), Limits(search_drop=0.1))
