"""Specs and labels: one text for one surrogate, and clear errors."""

from __future__ import annotations

import pytest

from distillc.errors import UsageError
from distillc.surrogates.specs import canonical_spec, parse_spec


def test_defaults_and_order_do_not_matter() -> None:
    assert canonical_spec("scan2:state=1") == "scan2"
    assert canonical_spec("ssd:state=4,directions=2") == "ssd:directions=2,state=4"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mambo", "conv, fixed, mamba, scan1, scan2, skip, ss2d, ssd"),
        ("scan1:width=2", "expansion"),
        ("conv:state=1", "it has: width"),
        ("scan1:state=5", "1 to 4"),
        ("scan1:state=0", "1 to 4"),
        ("scan1:state=x", "1 to 4"),
    ],
)
def test_a_wrong_spec_names_what_is_allowed(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_spec(spec)
