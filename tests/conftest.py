"""Fixtures that every folder shares."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import nn

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite the golden texts")


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with `tests/golden/<name>`, or rewrite it with --regen."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--regen"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --regen and read the result"
        assert text == path.read_text()

    return check


@pytest.fixture
def shared() -> Path:
    """Folder of real checkpoints and photographs that are not part of the product."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder, missing here: {SHARED}")
    return SHARED


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path for packages; what is found in it is forgotten afterwards."""
    from tests.packages import KINDS

    monkeypatch.syspath_prepend(tmp_path)
    for each in KINDS:
        monkeypatch.setattr(each, "_found", {})
    yield tmp_path
    for name, each in list(sys.modules.items()):
        if Path(getattr(each, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def build_tiny_restormer() -> nn.Module:
    """Restormer of dim 8 with one block a level: the smallest real network."""
    from distillc.frontend.restormer import Restormer

    torch.manual_seed(0)
    return Restormer(
        dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 2, 2, 4)
    ).eval()


@pytest.fixture
def tiny_restormer() -> nn.Module:
    return build_tiny_restormer()


@pytest.fixture
def tiny_checkpoint(tmp_path: Path, tiny_restormer: nn.Module) -> Path:
    path = tmp_path / "tiny.pth"
    torch.save({"params": tiny_restormer.state_dict()}, path)
    return path


@dataclass(frozen=True)
class Converted:
    """A finished conversion: its bundle, its arguments, and what the killed run had left."""

    bundle: Path
    arguments: list[str]
    journal_before: int
    log: str


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """One conversion of a tiny checkpoint, killed on the way and run again; for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "convert", shared / "converted.json"
    with FileLock(shared / "convert.lock"):
        if not done.exists():
            folder.mkdir()
            done.write_text(json.dumps(asdict(_convert(folder)), default=str))
    found = json.loads(done.read_text())
    return Converted(**{**found, "bundle": Path(found["bundle"])})


def _convert(folder: Path) -> Converted:
    checkpoint = folder / "tiny.pth"
    torch.save({"params": build_tiny_restormer().state_dict()}, checkpoint)
    bundle = folder / "tiny.distillc"
    arguments = ["convert", str(checkpoint), "--out", str(bundle), "--work-dir", f"{folder}/work"]
    arguments += ["--size", "32", "--budget", "smoke", "--target", "snapdragon8elite"]
    command = [sys.executable, "-m", "distillc.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    journals: list[Path] = []
    deadline = time.monotonic() + 240
    while first.poll() is None and time.monotonic() < deadline:
        journals = [
            path for path in folder.glob("work/search-*/hybrids.jsonl") if path.stat().st_size > 400
        ]
        if journals:
            break
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert journals, "the first run never reached the search"
    before = len(journals[0].read_text().splitlines())
    assert not bundle.exists()

    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    return Converted(bundle, arguments, before, second.stdout + second.stderr)
