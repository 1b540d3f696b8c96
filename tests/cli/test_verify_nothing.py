"""`distillc verify`: what checks nothing is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.fake import fake_bundle

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("images", [0, -1])
def test_no_images(run: Run, tmp_path: Path, images: int) -> None:
    bundle = fake_bundle(tmp_path / "fake")
    code, out, error = run("verify", bundle.path, "--images", images)
    assert code == 2
    assert "verified" not in out
    assert str(images) in error


@pytest.mark.parametrize("shape", [[1, 3], [1, 3, "x", 64], [1, 3, 0, 0]])
def test_shapes_of_no_image(run: Run, tmp_path: Path, shape: list[object]) -> None:
    path = fake_bundle(tmp_path / "fake").path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "input_shape": shape}))
    code, out, error = run("verify", path.parent)
    assert code == 8
    assert "verified" not in out
    assert "manifest is damaged: input_shape" in error


def test_files_that_hold_nothing(run: Run, tmp_path: Path) -> None:
    bundle = fake_bundle(tmp_path / "fake")
    code, out, error = run("verify", bundle.path)
    assert code == 8
    assert "verified" not in out
    assert "cannot be used" in error
