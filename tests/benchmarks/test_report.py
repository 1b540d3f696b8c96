"""Tables, ratios and exponents of the benchmarks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.kernel_work import Work
from tests.benchmarks.kernels import family_rows, kernel_rows
from tests.benchmarks.network import add_ratios
from tests.benchmarks.report import fit_exponent, markdown, percentiles


def test_table_aligns_numbers_and_leaves_unknown_cells_empty() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "ours", "ms": 1.25},
        {"name": "a longer name", "ms": None},
        {"name": "none"},
    ]
    assert markdown({"engine": "name", "ms": "ms:.1f"}, rows).splitlines() == [
        "| engine        |  ms |",
        "|---------------|----:|",
        "| ours          | 1.2 |",
        "| a longer name |     |",
        "| none          |     |",
    ]


def test_table_without_rows_is_its_head() -> None:
    assert markdown({"engine": "name"}, []).splitlines()[0] == "| engine |"


def test_percentiles() -> None:
    assert percentiles([1.0, 2.0, 3.0]) == {"median_ms": 2.0, "p10_ms": 1.2, "p90_ms": 2.8}


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
def test_exponent_of_a_power_law(exponent: float) -> None:
    pixels = [64.0**2, 128.0**2, 512.0**2]
    assert fit_exponent(pixels, [3 * each**exponent for each in pixels]) == pytest.approx(exponent)


def test_ratios_are_to_the_teacher_in_peers() -> None:
    rows: list[dict[str, Any]] = [
        {"network": "teacher", "engine": "distillc", "median_ms": 10.0},
        {"network": "teacher", "engine": "onnxruntime", "median_ms": 20.0},
        {"network": "teacher", "engine": "openvino", "median_ms": 15.0},
        {"network": "mamba", "engine": "onnxruntime", "median_ms": 40.0},
        {"network": "teacher", "engine": "ncnn", "remark": "does not convert"},
    ]
    add_ratios(rows)
    assert [row.get("over_onnxruntime") for row in rows] == [2.0, 1.0, 20 / 15, 0.5, None]
    assert [row.get("over_best") for row in rows] == [1.5, 0.75, 1.0, 0.375, None]


def test_ratios_without_a_peer_are_left_out() -> None:
    rows: list[dict[str, Any]] = [{"network": "teacher", "engine": "distillc", "median_ms": 10.0}]
    add_ratios(rows)
    assert "over_onnxruntime" not in rows[0]
    assert "over_best" not in rows[0]


def test_kernels_are_rated_and_summed_by_rule() -> None:
    peaks = {"fma": 100.0, "memory": 10.0}
    times = {
        "a": {"calls": 2, "ms": 2.0},
        "b": {"calls": 1, "ms": 1.0},
        "c": {"calls": 4, "ms": 3.0},
        "vm.builtin": {"calls": 9, "ms": 4.0},
    }
    work = {
        "a": Work("contraction", "2x3", 50_000_000, 1_000_000),
        "b": Work("contraction", "4", 50_000_000, 1_000_000),
        "c": Work("elementwise", "5", 0, 3_000_000),
    }
    rows = kernel_rows(times, work, peaks)
    assert [row["name"] for row in rows] == ["vm.builtin", "c", "a", "b"]
    assert [row["gflops"] for row in rows] == [None, None, pytest.approx(50), pytest.approx(50)]
    families = {row["rule"]: row for row in family_rows(rows, peaks)}
    assert families["contraction"]["calls"] == 3
    assert families["contraction"]["of_fma"] == pytest.approx(0.5)
    assert families["elementwise"]["gbs"] == pytest.approx(4)
    assert families["elementwise"]["of_triad"] == pytest.approx(0.4)
    assert families["virtual machine"]["gbs"] is None
    assert sum(row["share"] for row in families.values()) == pytest.approx(1)
