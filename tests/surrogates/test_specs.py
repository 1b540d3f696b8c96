"""Specs and labels: one text for one surrogate, and clear errors."""

from __future__ import annotations

import pytest

from distillc.errors import UsageError
from distillc.surrogates.specs import canonical_spec, parse_spec


def test_defaults_and_order_do_not_matter() -> None:
    assert canonical_spec("mamba:state=1") == "mamba"
    assert canonical_spec("mamba:width=50,state=4") == "mamba:state=4,width=50"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mambo", "conv, mamba, skip, ssd"),
        ("mamba:expansion=2", "values"),
        ("conv:state=1", "it has: width"),
        ("mamba:state=17", "1 to 16"),
        ("mamba:state=0", "1 to 16"),
        ("mamba:state=x", "1 to 16"),
    ],
)
def test_a_wrong_spec_names_what_is_allowed(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_spec(spec)


def test_a_family_that_is_gone_names_another() -> None:
    with pytest.raises(UsageError, match="'ss2d' was taken out") as error:
        parse_spec("ss2d:state=4")
    assert error.value.hint == "use mamba"
