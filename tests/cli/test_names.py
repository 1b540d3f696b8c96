"""Names that are no plain files, and places that cannot be written: errors, and nothing waits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", ["inspect", "tune", "explain-failure", "convert", "bench"])
@pytest.mark.parametrize("ending", ["pth", "pt2", "onnx", "safetensors"])
def test_a_pipe_is_no_input(command: str, ending: str, run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe.{ending}"
    os.mkfifo(pipe)
    code, _, error = run(command, pipe)
    assert code in (2, 3)
    assert "not a file" in error or "not a bundle" in error
    assert "unexpected" not in error


@pytest.mark.parametrize("name", ["/dev/zero", "."])
def test_devices_and_folders_are_no_checkpoints(name: str, run: Run) -> None:
    code, _, error = run("convert", name)
    assert (code, "not a file" in error) == (3, True), error


@pytest.mark.parametrize("place", ["/proc/x", "file/x"])
def test_places_of_results(place: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for words in (["explain-failure", "x.pth", "--out"], ["run", "x", "x.png"]):
        code, _, error = run(*words, tmp_path / place)
        assert (code, "cannot write" in error) == (11, True), error
