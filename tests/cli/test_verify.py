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
from distillc.frontend.load import load
from distillc.runtime.bundle import Bundle
from tests.passes.toy import ToyNet
from tests.runtime.conftest import bundle, toy_hybrid, verified

Run = Callable[..., tuple[int, str, str]]

__all__ = ["bundle", "verified"]

ARCH = "tests.passes.toy:ToyNet"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index} [bold].png")
    return folder


@pytest.fixture
def made(bundle: Bundle) -> Bundle:
    """A bundle whose teacher lies beside it."""
    teacher = bundle.path.parent / "toy.pth"
    torch.save(toy_hybrid().module.state_dict(), teacher)
    source = dict(load(teacher, arch=ARCH).source)
    return bundle.annotate({"source": source})


def mean_psnr(module: Callable[[torch.Tensor], torch.Tensor], photos: Path) -> float:
    values = []
    for each in open_test_set(photos, "denoise:sigma=15").unseen((16, 16)):
        with torch.no_grad():
            errors = [(module(x).clamp(0, 1) - clean).square() for x, clean in each.pairs]
        values.append(-10 * np.log10(torch.cat(errors).double().mean().item()))
    return float(np.mean(values))


def test_quality_on_the_users_images(made: Bundle, photos: Path, run: Run) -> None:
    words = ["verify", made.path, "--images", 1, "--data", photos, "--arch", ARCH]
    words += ["--task", "denoise:sigma=15"]
    code, out, error = run(*words, "--json")
    assert code == 0, error
    found = json.loads(out)["data"]
    assert (found["images"], found["window"], found["notice"]) == (2, [16, 16], None)
    assert found["ran"] == "the compiled library"
    teacher = ToyNet()
    teacher.load_state_dict(toy_hybrid().module.state_dict())
    assert found["teacher"]["psnr"] == pytest.approx(mean_psnr(teacher, photos), abs=1e-3)
    wanted = mean_psnr(toy_hybrid().hybrid(), photos)
    assert found["hybrid"]["psnr"] == pytest.approx(wanted, abs=1e-3)
    assert found["drop_db"] == pytest.approx(found["teacher"]["psnr"] - found["hybrid"]["psnr"])
    assert found["interval_db"][0] < found["drop_db"] < found["interval_db"][1]
    code, out, _ = run(*words)
    assert code == 0
    assert f"{found['worst_db']:.3f} dB, {found['worst_image']}" in out
    assert "quality on 2 images of photos" in out


def test_without_its_teacher_the_hybrid_is_measured_alone(
    made: Bundle, photos: Path, run: Run
) -> None:
    words = ["verify", made.path, "--images", 1, "--data", photos]
    code, out, _ = run(*words)
    assert code == 0
    assert "the hybrid is measured alone: " in out
    assert "give --arch again" in " ".join(out.split())
    code, out, _ = run(*words, "--json")
    found = json.loads(out)["data"]
    assert found["drop_db"] is None
    assert "give --arch again" in found["notice"]
    code, _, error = run(*words, "--teacher", photos / "0 [bold].png")
    assert code == 2
    assert "not the checkpoint that the bundle was made from" in error


def test_options_that_would_do_nothing_or_harm(bundle: Bundle, run: Run) -> None:
    code, _, error = run("verify", bundle.path, "--teacher", "x.pth")
    assert code == 2
    assert "add --data" in error
    code, _, error = run("verify", bundle.path, "--task", "sr:scale=2")
    assert code == 2
    assert "enlarges images 2 times, the network 1 times" in error
