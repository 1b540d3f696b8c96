from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import distillc.cli
import distillc.passes
from distillc.cli import cli

Run = Callable[..., tuple[int, str, str]]


def test_inspect_prints_the_tree(tiny_checkpoint: Path, run: Run) -> None:
    code, out, _ = run("inspect", tiny_checkpoint, "--size", 64)
    assert code == 0
    assert "8 blocks" in out
    assert out.count("channel") == 8


def test_inspect_json(tiny_checkpoint: Path, run: Run) -> None:
    code, out, _ = run("inspect", tiny_checkpoint, "--size", "64x32", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["size"] == [64, 32]
    assert data["blocks"][0]["shape"] == [1, 8, 64, 32]
    assert data["source"]["architecture"] == "Restormer"


def test_targets_and_passes(run: Run) -> None:
    code, out, _ = run("targets", "--json")
    assert code == 0
    assert {"host", "snapdragon8elite", "snapdragon8gen3", "generic-aarch64"} <= {
        each["name"] for each in json.loads(out)
    }
    code, out, _ = run("passes", "--json")
    assert code == 0
    after = {each["name"]: each["after"] for each in json.loads(out)}
    assert after["FindAttention"] == ["Trace"]
    assert set(distillc.passes.__all__) <= set(after)


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help(command: str, run: Run) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "--json" in out


def test_no_command_hides_a_module_of_the_standard_library() -> None:
    """Python looks first in the folder of the file that it runs."""
    program = Path(distillc.cli.__file__).with_name("__main__.py")
    words = [sys.executable, program, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout


def test_the_exit_codes_are_documented(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for number in range(12):
        assert str(number) in out
    assert "verification" in out


def test_an_unexpected_error_is_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("distillc.frontend.load.load", fail)
    code, _, error = run("inspect", tiny_checkpoint)
    assert code == 1
    assert "unexpected ZeroDivisionError" in error
    assert "--debug" in error
    assert "Traceback" not in error


def test_missing_bundle(run: Run, tmp_path: Path) -> None:
    code, _, error = run("verify", tmp_path / "nothing.distillc")
    assert code == 2
    assert "does not exist" in error
