from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from distillc.errors import UsageError
from distillc.frontend.restormer import Restormer
from distillc.passes import training

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_teacher", EXAMPLES / "train_teacher.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    small = "--dim 8 --blocks 1 1 1 1 --heads 1 1 2 2 --batch 2 --patch 16 --steps 4"
    return [str(tmp_path), "--test", str(tmp_path), *small.split(), "--report-every", "2"]


def test_trains_and_saves_a_checkpoint(
    script: ModuleType, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "teacher.pth"
    script.main([*words, "--out", str(out)])
    weights = torch.load(out, weights_only=True)["params"]
    net = Restormer(
        dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, heads=(1, 1, 2, 2)
    ).eval()
    net.load_state_dict(weights)
    assert net(torch.rand(1, 3, 16, 16)).isfinite().all()
    printed = capsys.readouterr().out
    assert "step 2: " in printed
    assert "4 steps, " in printed
    assert not out.with_suffix(".state").exists()


def test_goes_on_after_a_kill(
    script: ModuleType, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    whole, resumed = tmp_path / "whole.pth", tmp_path / "resumed.pth"
    script.main([*words, "--out", str(whole)])

    def kill(*args: object) -> None:
        raise KeyboardInterrupt

    working = script.mean_psnr
    monkeypatch.setattr(script, "mean_psnr", kill)
    with pytest.raises(KeyboardInterrupt):
        script.main([*words, "--out", str(resumed)])
    monkeypatch.setattr(script, "mean_psnr", working)
    assert resumed.with_suffix(".state").exists()
    script.main([*words, "--out", str(resumed)])
    first, second = (torch.load(each, weights_only=True)["params"] for each in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_enlarging_tasks_are_refused(script: ModuleType, words: list[str]) -> None:
    with pytest.raises(UsageError, match="choose another --task"):
        script.main([*words, "--out", "unused.pth", "--task", "sr:scale=2"])
