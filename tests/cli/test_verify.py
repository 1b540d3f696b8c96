"""`distillc verify --data`: what a bundle loses on the user's own images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distillc.data.images import open_test_set
from distillc.runtime.devices.local import missing_parts
from tests.conftest import Converted

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.skipif(
    bool(missing_parts()), reason=f"the emulator is not complete: {missing_parts()}"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index} [bold].png")
    return folder


def test_quality_on_the_users_images(converted: Converted, photos: Path, run: Run) -> None:
    words = ["verify", converted.bundle, "--images", 1, "--data", photos]
    words += ["--task", "denoise:sigma=15"]
    code, out, _ = run(*words, "--json")
    assert code == 0
    found = json.loads(out)["data"]
    assert (found["images"], found["window"], found["notice"]) == (2, [32, 32], None)
    assert found["ran"] == "torch"
    hybrid = torch.export.load(converted.bundle / "hybrid.pt2").module()
    errors = [
        torch.cat([(hybrid(x).clamp(0, 1) - clean).square() for x, clean in each.pairs])
        for each in open_test_set(photos, "denoise:sigma=15").unseen((32, 32))
    ]
    wanted = np.mean([-10 * np.log10(each.double().mean().item()) for each in errors])
    assert found["hybrid"]["psnr"] == pytest.approx(wanted, abs=1e-4)
    assert found["drop_db"] == pytest.approx(
        found["teacher"]["psnr"] - found["hybrid"]["psnr"], abs=1e-9
    )
    code, out, _ = run(*words)
    assert code == 0
    assert f"{found['worst_db']:.3f} dB, {found['worst_image']}" in out
    assert "quality on 2 images of photos" in out


def test_without_its_teacher_the_hybrid_is_measured_alone(
    converted: Converted, photos: Path, run: Run, tmp_path: Path
) -> None:
    away = tmp_path / "away" / "tiny.distillc"
    away.parent.mkdir()
    away.symlink_to(converted.bundle)
    checkpoint = converted.bundle.parent / "tiny.pth"
    hidden = checkpoint.rename(tmp_path / "hidden.pth")
    words = ["verify", converted.bundle, "--images", 1, "--data", photos]
    try:
        code, out, _ = run(*words)
        assert code == 0
        assert "the hybrid is measured alone: tiny.pth is neither beside" in " ".join(out.split())
        code, out, _ = run(*words, "--teacher", hidden, "--json")
        assert json.loads(out)["data"]["drop_db"] is not None
        code, _, error = run(*words, "--teacher", photos / "0 [bold].png")
        assert code == 2
        assert "not the checkpoint that the bundle was made from" in error
    finally:
        hidden.rename(checkpoint)


def test_options_that_would_do_nothing_or_harm(converted: Converted, run: Run) -> None:
    code, _, error = run("verify", converted.bundle, "--teacher", "x.pth")
    assert code == 2
    assert "add --data" in error
    code, _, error = run("verify", converted.bundle, "--task", "sr:scale=2")
    assert code == 2
    assert "enlarges images 2 times, the network 1 times" in error
