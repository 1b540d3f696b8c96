"""Metrics of other packages: found, measured within [0, 1], refused where they fail."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distillc.data.figures import METRICS, PSNR, SSIM, Metric, further_metrics, measure
from distillc.errors import UsageError
from tests.packages import write_package

SOURCE = """
from distillc.data.figures import Metric

def _measure(image, reference):
    if image.mean() > 0.9:
        raise RuntimeError("too bright")
    return float((image - reference).abs().max())

LARGEST = Metric("largest", "largest difference", _measure)
"""
ENTRY = {"distillc.metrics": {"largest": "theirs:LARGEST"}}


def test_ours_are_not_measured_twice() -> None:
    assert further_metrics() == []
    assert (METRICS.find("psnr"), METRICS.find("ssim")) == (PSNR, SSIM)
    clean = torch.full((1, 3, 16, 16), 0.5)
    assert measure(PSNR, clean + 0.1, clean) == pytest.approx(20)
    assert measure(SSIM, clean, clean) == pytest.approx(1)


def test_another_package_adds_one(site: Path) -> None:
    write_package(site, "theirs", {"theirs.py": SOURCE}, ENTRY)
    (metric,) = further_metrics()
    clean = torch.full((1, 3, 4, 4), 0.75)
    assert measure(metric, clean - 0.25, clean) == 0.25
    assert measure(metric, clean - 2, clean) == 0.75  # clamped to [0, 1]
    with pytest.raises(UsageError, match="'largest' fails: RuntimeError: too bright") as caught:
        measure(metric, clean + 1, clean)
    assert caught.value.where == "theirs:LARGEST"


def test_one_that_cannot_be_used_is_an_error(site: Path) -> None:
    entry = {"distillc.metrics": {"largest": "no_metric:LARGEST"}}
    write_package(site, "theirs", {"no_metric.py": "LARGEST = 3"}, entry)
    with pytest.raises(
        UsageError, match="'largest' cannot be imported: TypeError: it is not a Metric"
    ):
        further_metrics()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_are_finite(site: Path, value: float) -> None:
    write_package(site, "theirs", {"theirs.py": SOURCE}, ENTRY)
    metric = Metric("largest", "", lambda image, reference: value)
    with pytest.raises(UsageError, match=f"'largest' gives {value}"):
        measure(metric, torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
