"""plot_front: a PNG, with and without a chosen point, for every objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distillc.passes.plot_front import OBJECTIVES, plot_front

SEARCH: dict[str, Any] = {
    "objective": "macs",
    "points": [[0.2, 24.5], [0.3, 24.0], [0.4, 33.0]],
    "front": [[0.2, 24.5], [0.4, 33.0]],
    "teacher": [0.4, 33.0],
}


def pixels(path: Path, **entries: Any) -> np.ndarray:
    plot_front(path, {**SEARCH, **entries})
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective(tmp_path: Path, objective: str) -> None:
    assert pixels(tmp_path / "front.png", objective=objective).std() > 10
    assert [path.name for path in tmp_path.iterdir()] == ["front.png"]


def test_chosen_point_is_drawn(tmp_path: Path) -> None:
    without = pixels(tmp_path / "front.png")
    chosen = pixels(tmp_path / "front.png", chosen=[0.2, 24.5])
    orange = np.array([0xE8, 0x59, 0x0C])
    assert not (without == orange).all(-1).any()
    assert (chosen == orange).all(-1).sum() > 50


def test_teacher_alone(tmp_path: Path) -> None:
    only = [[0.4, 33.0]]
    pixels(tmp_path / "front.png", points=only, front=only)
