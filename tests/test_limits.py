"""Limits: what is asked of the hybrid, refused where it makes no sense."""

from __future__ import annotations

import math

import pytest

from distillc.errors import UsageError
from distillc.limits import NONE, Limits


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: math.nan} for name in ("max_drop", "min_speedup", "max_latency_ms")),
        *({name: math.inf} for name in ("max_drop", "min_speedup", "max_latency_ms")),
        {"max_drop": -0.1},
        {"min_speedup": 0},
        {"max_latency_ms": -1},
    ],
)
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="is out of range"):
        Limits(**wrong)


def test_labels_in_their_own_form() -> None:
    limits = Limits(replace={"a": "mamba:state=1@block", "b": "mamba@attention"})
    among = limits.among(["conv", "mamba", "mamba:state=1@attention"])
    assert among.replace == {"a": "mamba", "b": "mamba@attention"}
    assert NONE.among(["conv"]) == NONE
    with pytest.raises(UsageError, match="'mamba@attention' is not among the families tried"):
        limits.among(["conv", "mamba"])
