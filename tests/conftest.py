"""Fixtures that every folder shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite the golden texts")


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(2)


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
