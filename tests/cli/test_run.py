"""`distillc run`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., tuple[int, str, str]]


def test_an_image_smaller_than_the_bundle(converted: Any, run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "in.png")
    code, out, _ = run("run", converted.bundle, tmp_path / "in.png", tmp_path / "out.png", "--json")
    assert code == 0
    assert json.loads(out)["height"] == 30
    assert Image.open(tmp_path / "out.png").size == (20, 30)


@pytest.mark.parametrize(
    ("words", "message", "exit_code"),
    [
        (["in.png", "out.xyz"], "is not an image format", 10),
        (["none.png", "out.png"], "cannot read none.png", 10),
        (["in.png", "out.png", "--overlap", "500"], "cannot overlap by 500", 2),
    ],
)
def test_what_cannot_be_done(
    converted: Any, run: Run, tmp_path: Path, words: list[str], message: str, exit_code: int
) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "in.png")
    paths = [tmp_path / word if "." in word else word for word in words]
    code, _, error = run("run", converted.bundle, *paths)
    assert code == exit_code
    assert message in error
