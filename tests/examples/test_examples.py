"""The examples run as they stand, on a tiny checkpoint."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillc.runtime.bundle import Bundle
from distillc.runtime.devices.local import missing_parts
from tests.conftest import Converted

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

needs_emulator = pytest.mark.skipif(
    bool(missing_parts()), reason=f"the emulator is not complete: {missing_parts()}"
)


def run(name: str, *words: object, monkeypatch: pytest.MonkeyPatch) -> None:
    path = EXAMPLES / name
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, words)])
    runpy.run_path(str(path), run_name="__main__")


def test_compose_passes(
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "all.distillc"
    words = ["--steps", 1, "--size", 32, "--out", out]
    run("compose_passes.py", tiny_checkpoint, *words, monkeypatch=monkeypatch)
    assert "8 blocks replaced" in capsys.readouterr().out
    assert Bundle.open(out).manifest["verified"] is True


def test_custom_pass(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("custom_pass.py", tiny_checkpoint, "--share", 0.2, monkeypatch=monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) < 8
    assert any(line.startswith("refinement.0") for line in lines)


@needs_emulator
def test_custom_target(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("custom_target.py", monkeypatch=monkeypatch)
    assert "compiled for cortex-a76" in capsys.readouterr().out


@needs_emulator
def test_ci_script(converted: Converted, tmp_path: Path) -> None:
    """The script that the workflow runs; a copy of the work directory makes it quick."""
    checkpoint, out = converted.arguments[1], tmp_path / "ci.distillc"
    work = shutil.copytree(converted.bundle.parent / "work", tmp_path / "work")
    options = ["--work-dir", str(work), *converted.arguments[6:]]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(EXAMPLES / "ci" / "convert.sh"), checkpoint, str(out), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "ci.json").read_text())["verified"] is True
    assert json.loads((tmp_path / "ci.verify.json").read_text())["max_error"] <= 1e-4


def test_ci_script_fails_without_a_checkpoint(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(EXAMPLES / "ci" / "convert.sh"), "missing.pth", str(tmp_path / "x.distillc")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3
    assert not (tmp_path / "x.distillc").exists()


def test_the_workflow_calls_the_script() -> None:
    text = (EXAMPLES / "ci" / "github-workflow.yml").read_text()
    assert "./convert.sh" in text
    assert (EXAMPLES / "ci" / "convert.sh").stat().st_mode & 0o100
