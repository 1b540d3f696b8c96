"""What a hybrid loses: mean, interval and worst by hand, and the same of a bundle's parts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillc.data.images import open_test_set
from distillc.data.windows import Windows
from distillc.runtime.bundle import Bundle
from distillc.runtime.quality import confidence_interval, measure_bundle, measure_quality
from tests.packages import write_package

from .conftest import toy_hybrid

CLEAN = torch.full((1, 3, 16, 16), 0.5)


def image(name: str, *errors: float) -> Windows:
    """An image of flat windows, each degraded by an offset."""
    return Windows(name, tuple((CLEAN + error, CLEAN) for error in errors))


def darker(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def test_mean_interval_and_worst() -> None:
    images = [image("a", 0.2), image("b", 0.1), image("c", 0.3)]
    found = measure_quality(darker, same, images, "flat images")
    losses = [20 * math.log10(each) for each in (0.3 / 0.2, 0.2 / 0.1, 0.4 / 0.3)]
    assert found.drop_db == pytest.approx(np.mean(losses), abs=1e-4)
    reach = 4.3027 * np.std(losses, ddof=1) / math.sqrt(3)  # the table's t of two degrees, 97.5 %
    assert found.interval_db == pytest.approx(
        (np.mean(losses) - reach, np.mean(losses) + reach), abs=1e-3
    )
    assert (found.worst_image, found.worst_db) == ("b", pytest.approx(losses[1], abs=1e-4))
    assert (found.images, found.origin, found.window) == (3, "flat images", (16, 16))
    assert found.teacher is not None
    assert found.teacher.psnr == pytest.approx(-20 * np.mean(np.log10([0.2, 0.1, 0.3])), abs=1e-4)
    assert found.hybrid.psnr == pytest.approx(found.teacher.psnr - np.mean(losses), abs=1e-4)


def test_windows_of_an_image_are_one_image() -> None:
    """Their errors are pooled: the mean of their PSNRs would be 17.0 dB."""
    found = measure_quality(same, None, [image("a", 0.1, 0.2)], "")
    assert found.hybrid.psnr == pytest.approx(-10 * math.log10((0.01 + 0.04) / 2), abs=1e-4)


def test_a_hybrid_without_a_teacher() -> None:
    found = measure_quality(same, None, [image("a", 0.1), image("b", 0.1)], "")
    assert found.hybrid.psnr == pytest.approx(20, abs=1e-3)
    assert (found.teacher, found.drop_db, found.interval_db) == (None, None, None)
    assert (found.worst_db, found.worst_image) == (None, None)


def test_perfect_outputs_lose_nothing() -> None:
    found = measure_quality(same, same, [image("a", 0.0), image("b", 0.0)], "")
    assert (found.drop_db, found.interval_db, found.worst_db) == (0, (0, 0), 0)


def test_metrics_of_other_packages_are_measured(site: Path) -> None:
    source = """
from distillc.data.figures import Metric
LARGEST = Metric("largest", "largest difference", lambda y, x: (y - x).abs().max().item())
"""
    entries = {"distillc.metrics": {"largest": "theirs:LARGEST"}}
    write_package(site, "theirs", {"theirs.py": source}, entries)
    found = measure_quality(darker, same, [image("a", 0.1, 0.3), image("b", 0.2)], "")
    assert found.teacher is not None
    assert found.teacher.further == pytest.approx({"largest": 0.2})
    assert found.hybrid.further == pytest.approx({"largest": 0.3})


def test_one_image_says_nothing_about_others() -> None:
    assert measure_quality(darker, same, [image("a", 0.1)], "").interval_db is None


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(0.1, 0.05, (2000, 5)).tolist()
    intervals = [confidence_interval(each) for each in draws]
    held = [each is not None and each[0] <= 0.1 <= each[1] for each in intervals]
    assert 0.935 < np.mean(held) < 0.965


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        pixels = random.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_the_compiled_library_and_torch_measure_the_same(bundle: Bundle, photos: Path) -> None:
    data = open_test_set(photos, "denoise:sigma=25")
    teacher = toy_hybrid().module
    compiled = measure_bundle(bundle, teacher, data.unseen((16, 16)), data.origin)
    in_torch = measure_quality(
        toy_hybrid().hybrid(), teacher, data.unseen((16, 16)), "images of photos"
    )
    assert (compiled.ran, in_torch.ran) == ("the compiled library", "torch")
    assert (compiled.images, compiled.origin) == (3, "images of photos")
    assert compiled.drop_db == pytest.approx(in_torch.drop_db, abs=1e-4)
    assert compiled.worst_image == in_torch.worst_image
    assert abs(in_torch.drop_db or 0) > 1e-2  # the two networks differ


def test_elsewhere_torch_measures(arm: Bundle, photos: Path) -> None:
    data = open_test_set(photos, "denoise:sigma=25")
    found = measure_bundle(arm, None, data.unseen((16, 16)), "photos")
    assert found.ran == "torch"
    wanted = measure_quality(toy_hybrid().hybrid(), None, data.unseen((16, 16)), "")
    assert found.hybrid.psnr == pytest.approx(wanted.hybrid.psnr, abs=1e-4)
