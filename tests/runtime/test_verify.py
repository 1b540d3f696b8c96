"""verify_bundle: good bundles pass and are marked; one whose parts disagree never does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distillc.data.metrics import psnr
from distillc.errors import DataError, UsageError, VerificationError
from distillc.runtime import verify as verify_module
from distillc.runtime.bundle import Bundle, create_bundle
from distillc.runtime.verify import (
    TOLERANCE,
    restoration_quality,
    verification_images,
    verify_bundle,
)

from .conftest import pairs, toy_hybrid


def swap(bundle: Bundle, other: Bundle, name: str) -> Bundle:
    """Put a file of another bundle in, with a manifest that knows it."""
    shutil.copy2(other.path / name, bundle.path / name)
    return create_bundle(bundle.path, {**bundle.manifest, "verified": False})


def test_good_bundle_passes_and_is_marked(bundle: Bundle) -> None:
    fresh = create_bundle(bundle.path, {**bundle.manifest, "verified": False})
    images = pairs()
    result = verify_bundle(fresh, images)
    assert result.device == "host"
    assert result.images == 2
    assert 0 <= result.max_error <= TOLERANCE
    assert 0 <= result.onnx_error <= TOLERANCE
    assert result.psnr_to_torch > 80
    module = toy_hybrid().hybrid()
    with torch.no_grad():
        wanted = np.mean([psnr(module(noisy), clean) for noisy, clean in images])
    assert result.psnr == pytest.approx(wanted, abs=0.01)
    assert result.ssim is not None
    assert -1 <= result.ssim <= 1
    opened = Bundle.open(bundle.path)
    assert opened.manifest["verified"] is True
    assert opened.manifest["metrics"]["verification"]["max_error"] == result.max_error
    assert fresh.manifest["verified"] is True


def test_without_images_the_reference_is_compared(bundle: Bundle) -> None:
    result = verify_bundle(bundle)
    assert (result.images, result.psnr, result.ssim) == (0, None, None)
    json.dumps(Bundle.open(bundle.path).manifest["metrics"], allow_nan=False)


def test_arm_bundle_under_the_emulator(arm: Bundle, tmp_path: Path) -> None:
    copy = Bundle.open(shutil.copytree(arm.path, tmp_path / "arm"))
    result = verify_bundle(copy, pairs(1))
    assert result.device == "emulator"
    assert result.max_error <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "images", "blamed"),
    [
        ("model.so", 0, "compiled library"),
        ("model.so", 1, "compiled library"),
        ("model.onnx", 0, "ONNX file"),
        ("reference.safetensors", 0, "exported program"),
        ("hybrid.pt2", 0, "exported program"),
        ("hybrid.pt2", 1, "exported program"),
    ],
)
def test_parts_of_other_weights(
    bundle: Bundle, other: Bundle, name: str, images: int, blamed: str
) -> None:
    mixed = swap(bundle, other, name)
    with pytest.raises(VerificationError, match=blamed) as caught:
        verify_bundle(mixed, pairs(images) if images else ())
    assert caught.value.exit_code == 8
    assert Bundle.open(bundle.path).manifest["verified"] is False
    with pytest.raises(VerificationError, match="not verified"):
        mixed.save(bundle.path.with_name("named"))


def test_not_a_number_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "run", lambda self, x, device: np.full_like(x, np.nan))
    with pytest.raises(VerificationError, match="differs from torch by nan"):
        verify_bundle(bundle)


def test_unknown_device(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        verify_bundle(bundle, device="phone")


class Brighter(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.1


def test_quality() -> None:
    clean = torch.full((1, 3, 16, 16), 0.5)
    figures = restoration_quality(Brighter(), [(clean, clean), (clean - 0.1, clean)])
    assert figures["psnr"] > 20
    only = restoration_quality(Brighter(), [(clean, clean)])
    assert only["psnr"] == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(
    ("size", "scale", "task"),
    [
        ((16, 16), 1, "denoise:sigma=25"),
        ((16, 40), 1, "denoise:sigma=25"),
        ((24, 16), 2, "sr:scale=2"),
    ],
)
def test_images_have_the_bundles_size(
    tmp_path: Path, size: tuple[int, int], scale: int, task: str
) -> None:
    bundle = Bundle(
        tmp_path, {"input_shape": [1, 3, *size], "task": task, "scale": scale, "target": "host"}
    )
    images = verification_images(bundle, None, 2)
    assert len(images) == 2
    for degraded, clean in images:
        assert degraded.shape == (1, 3, *size)
        assert clean.shape == (1, 3, size[0] * scale, size[1] * scale)


def test_folder_without_images(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, {"input_shape": [1, 3, 16, 16], "scale": 1})
    with pytest.raises(DataError):
        verification_images(bundle, tmp_path, 2)


def test_tolerance_is_what_the_message_says(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "TOLERANCE", -1.0)
    with pytest.raises(VerificationError, match="allowed is -1e"):
        verify_bundle(bundle)
