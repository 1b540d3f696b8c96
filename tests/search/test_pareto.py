from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillc.errors import QualityError
from distillc.network import SearchPoint
from distillc.search.pareto import choose_point, pareto_set

values = st.floats(1, 100, allow_nan=False)
points = st.lists(st.builds(SearchPoint, st.just({}), values, values), min_size=1, max_size=30)
TEACHER = SearchPoint({}, 32.0, 100.0)
FRONT = (
    SearchPoint({"a": "conv"}, 30.0, 20.0),
    SearchPoint({"a": "mamba"}, 31.5, 40.0),
    SearchPoint({"a": "fixed"}, 31.8, 80.0),
    TEACHER,
)


@given(points)
def test_nothing_beats_a_point_of_the_front(found: list[SearchPoint]) -> None:
    front = pareto_set(found)
    assert front
    for point in front:
        assert not any(
            other.psnr >= point.psnr
            and other.cost <= point.cost
            and (other.psnr, other.cost) != (point.psnr, point.cost)
            for other in found
        )
    for point in found:
        assert any(each.psnr >= point.psnr and each.cost <= point.cost for each in front)
    assert list(front) == sorted(front, key=lambda each: each.cost)


@given(points, st.floats(0, 50), st.floats(2, 1000))
def test_a_chosen_point_meets_the_limits(
    found: list[SearchPoint], drop: float, cost: float
) -> None:
    front = pareto_set([*found, TEACHER])
    feasible = [each for each in front if TEACHER.psnr - each.psnr <= drop and each.cost <= cost]
    if feasible:
        assert choose_point(front, TEACHER, drop, cost) in feasible
    else:
        with pytest.raises(QualityError, match="nearest"):
            choose_point(front, TEACHER, drop, cost)


def test_a_drop_buys_the_cheapest() -> None:
    assert choose_point(FRONT, TEACHER, max_drop=0.5) is FRONT[1]


def test_a_cost_buys_the_best() -> None:
    assert choose_point(FRONT, TEACHER, max_cost=50.0) is FRONT[1]
    assert choose_point(FRONT, TEACHER, max_cost=33.0) is FRONT[0]


def test_the_knee_lies_above_the_chord() -> None:
    assert choose_point(FRONT, TEACHER) is FRONT[1]
    assert choose_point(FRONT[1:2], TEACHER) is FRONT[1]


def test_without_limits_little_is_lost() -> None:
    """Below a front that bends the wrong way there is no knee worth having."""
    bent = (SearchPoint({}, 24.0, 20.0), SearchPoint({}, 25.0, 90.0), TEACHER)
    assert choose_point(bent, TEACHER) is TEACHER
    assert choose_point(bent[:1], TEACHER) is bent[0]


def test_the_nearest_point_is_named_with_the_option_that_takes_it() -> None:
    with pytest.raises(QualityError, match=r"loses 2.000 dB at 5.00 times") as caught:
        choose_point(FRONT, TEACHER, max_cost=100 / 6)
    assert "--min-speedup 5.00" in str(caught.value) or "--min-speedup 4.99" in str(caught.value)


@given(points, st.floats(0, 5), st.floats(1, 50))
def test_the_named_options_take_a_point(
    found: list[SearchPoint], drop: float, speedup: float
) -> None:
    front = pareto_set([*found, TEACHER])
    limits = {"max_drop": drop, "min_speedup": speedup}

    def choose(max_drop: float, min_speedup: float) -> SearchPoint:
        return choose_point(front, TEACHER, max_drop, TEACHER.cost / min_speedup)

    try:
        choose(**limits)
    except QualityError as error:
        options = dict(re.findall(r"--(max-drop|min-speedup) (\S+?)(?=[ ,])", f"{error.hint} "))
        assert options
        named = {name.replace("-", "_"): float(value) for name, value in options.items()}
        assert all(
            value > limits[name] if name == "max_drop" else value < limits[name]
            for name, value in named.items()
        ), "an option that the nearest point meets already is not named"
        choose(**(limits | named))
