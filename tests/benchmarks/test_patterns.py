from __future__ import annotations

from tests.benchmarks.patterns import scale_decisions


def test_blocks_take_the_decision_at_their_place_in_the_level() -> None:
    small = {"a.0": "conv", "a.1": "keep", "b.0": "mamba"}
    names = ["a.0", "a.1", "a.2", "a.3", "a.4", "b.0", "b.1"]
    scaled = scale_decisions(small, names)
    assert list(scaled) == names
    assert [scaled[f"a.{n}"] for n in range(5)] == ["conv", "conv", "conv", "keep", "keep"]
    assert scaled["b.0"] == scaled["b.1"] == "mamba"
    assert scale_decisions(small, list(small)) == small
