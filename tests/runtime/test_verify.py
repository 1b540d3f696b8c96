"""verify_bundle: good bundles pass and are marked; one whose parts disagree never does."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillc.compilation import compile as compile_bundle
from distillc.data.images import open_data
from distillc.data.metrics import psnr
from distillc.errors import DeviceError, StorageError, UsageError, VerificationError
from distillc.runtime import verify as verify_module
from distillc.runtime.bundle import Bundle, create_bundle
from distillc.runtime.verify import (
    TOLERANCE,
    verification_images,
    verify_bundle,
)
from distillc.workdir import read_tensors, write_tensors
from tests.frontend.test_programs import example_inputs, members_of, write

from .conftest import pairs, toy_hybrid

Array = np.ndarray[Any, Any]


def rehash(bundle: Bundle, **entries: Any) -> Bundle:
    """Make a manifest that knows the files as they are now."""
    return create_bundle(bundle.path, {**bundle.manifest, **entries}, bundle.manifest["files"])


def swap(bundle: Bundle, other: Bundle, name: str) -> Bundle:
    """Put a file of another bundle in, with a manifest that knows it."""
    shutil.copy2(other.path / name, bundle.path / name)
    return rehash(bundle, verified=False)


def test_good_bundle_passes_and_is_marked(bundle: Bundle) -> None:
    fresh = rehash(bundle, verified=False)
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
        ("weights.safetensors", 0, "weights.safetensors"),
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("case", [0, 1, 2])
def test_what_is_not_finite_fails_wherever_it_is(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, value: float, case: int
) -> None:
    """`max` drops a NaN that is not the first."""
    run, count = Bundle.run, iter(range(9))

    def spoiled(self: Bundle, x: Array, device: str) -> Array:
        y = run(self, x, device)
        if next(count) == case:
            y[0, 0, 3, 5] = value
        return y

    monkeypatch.setattr(Bundle, "run", spoiled)
    with pytest.raises(VerificationError, match=r"compiled library or torch .* not finite"):
        verify_bundle(bundle, pairs())
    assert bundle.manifest["verified"] is False
    assert Bundle.open(bundle.path).manifest["verified"] is False


def test_shapes_that_the_parts_do_not_have(bundle: Bundle) -> None:
    """The manifest is not believed: its shapes are those of the reference, or nothing passes."""
    shape = [1, 3, 8, 8]
    other = rehash(bundle, size=[8, 8], input_shape=shape, output_shape=shape)
    with pytest.raises(VerificationError, match=r"has \(1, 3, 16, 16\) .* says \(1, 3, 8, 8\)"):
        verify_bundle(other)
    assert Bundle.open(bundle.path).facts.verified is False


def test_a_bundle_that_cannot_be_written_fails_for_what_it_is(
    bundle: Bundle, other: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Bundle) -> None:
        raise StorageError("cannot write: Read-only file system")

    mixed = swap(bundle, other, "model.so")
    monkeypatch.setattr(Bundle, "unmark", fails)
    with pytest.raises(VerificationError, match="compiled library differs"):
        verify_bundle(mixed)


def test_an_image_that_is_restored_without_fault(bundle: Bundle) -> None:
    """Its PSNR is infinite, which JSON cannot hold."""
    (noisy, _), *_ = pairs(1)
    restored = torch.from_numpy(bundle.run(noisy.numpy()))
    result = verify_bundle(bundle, [(noisy, restored)])
    assert result.psnr == 999
    assert result.psnr_cost is not None
    assert math.isfinite(result.psnr_cost)
    assert Bundle.open(bundle.path).facts.verified is True


@pytest.mark.parametrize("count", [0, -1])
def test_no_images_are_no_check(count: int) -> None:
    data = open_data(None, "denoise:sigma=25")
    with pytest.raises(UsageError, match=f"{count} images: nothing would be compared"):
        verification_images(data, (16, 16), 1, count)


def test_another_shape_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bundle, "run", lambda self, x, device: x[:, :1])  # would broadcast
    with pytest.raises(VerificationError, match=r"returns \(1, 1, 16, 16\), torch"):
        verify_bundle(bundle)


def test_a_library_that_crashes_costs_the_mark(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise DeviceError("running compiled code failed: exit code -11")

    monkeypatch.setattr(Bundle, "run", crash)
    with pytest.raises(DeviceError, match="-11"):
        verify_bundle(bundle)
    assert Bundle.open(bundle.path).manifest["verified"] is False


def test_a_device_that_is_missing_does_not(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillc.runtime.devices.local.missing_parts", lambda: ["qemu"])
    with pytest.raises(DeviceError, match="qemu missing"):
        verify_bundle(bundle, device="emulator")
    assert Bundle.open(bundle.path).manifest["verified"] is True


@pytest.mark.parametrize("change", ["value", "name"])
def test_weights_are_those_of_the_program(bundle: Bundle, change: str) -> None:
    path = bundle.path / "weights.safetensors"
    weights = read_tensors(path)
    name = sorted(weights)[0]
    if change == "value":
        weights[name].view(-1)[0] += 1e-6
    else:
        weights["of another"] = weights.pop(name)
    write_tensors(path, weights)
    with pytest.raises(VerificationError, match=r"weights\.safetensors is not what") as caught:
        verify_bundle(rehash(bundle))
    assert name in caught.value.what
    assert Bundle.open(bundle.path).manifest["verified"] is False


@pytest.mark.parametrize("name", ["hybrid.pt2", "model.onnx", "reference.safetensors"])
def test_a_file_that_is_something_else(bundle: Bundle, name: str) -> None:
    (bundle.path / name).write_bytes(b"something else")
    with pytest.raises(VerificationError, match=f"{name} cannot be used"):
        verify_bundle(rehash(bundle))
    assert Bundle.open(bundle.path).manifest["verified"] is False


def test_a_hostile_program_runs_nothing(bundle: Bundle, tmp_path: Path) -> None:
    members, marker = members_of(bundle.path / "hybrid.pt2"), tmp_path / "ran"
    example_inputs(members, marker)
    write(members, bundle.path / "hybrid.pt2")
    with pytest.raises(VerificationError, match="can run any code"):
        verify_bundle(rehash(bundle))
    assert not marker.exists()


def test_unknown_device(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        verify_bundle(bundle, device="phone")


@pytest.mark.parametrize(
    ("size", "scale", "task"),
    [
        ((16, 16), 1, "denoise:sigma=25"),
        ((16, 40), 1, "denoise:sigma=25"),
        ((24, 16), 2, "sr:scale=2"),
    ],
)
def test_images_have_the_bundles_size(size: tuple[int, int], scale: int, task: str) -> None:
    images = verification_images(open_data(None, task), size, scale, 2)
    assert len(images) == 2
    for degraded, clean in images:
        assert degraded.shape == (1, 3, *size)
        assert clean.shape == (1, 3, size[0] * scale, size[1] * scale)


def test_an_image_that_is_the_reference_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pairs(3)
    first, *_ = images
    bundle = compile_bundle(toy_hybrid(), "host", (16, 16), directory=tmp_path, reference=first[0])
    stored = read_tensors(bundle.path / "reference.safetensors")
    assert torch.equal(stored["input"], first[0])
    run, inputs = Bundle.run, []

    def record(self: Bundle, x: Array, *rest: Any) -> Array:
        inputs.append(x)
        return run(self, x, *rest)

    monkeypatch.setattr(Bundle, "run", record)
    result = verify_bundle(bundle, images)
    assert (result.images, len(inputs)) == (3, 3)
    monkeypatch.undo()
    whole = verify_bundle(bundle, images[1:] + images[:1])
    assert result.psnr == pytest.approx(whole.psnr)


def test_tolerance_is_what_the_message_says(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "TOLERANCE", -1.0)
    with pytest.raises(VerificationError, match="allowed is -1e"):
        verify_bundle(bundle)


def test_half_precision_is_held_to_its_own_bounds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = rehash(bundle, precision="fp16")
    noise = np.random.default_rng(0).normal(size=half.manifest["output_shape"]).clip(-3, 3)
    run = Bundle.run

    def noisy(scale: float) -> None:
        monkeypatch.setattr(
            Bundle, "run", lambda *args: (run(*args) + scale * noise).astype(np.float32)
        )

    noisy(1e-3)  # 60 dB
    result = verify_bundle(half, pairs())
    assert result.precision == "fp16"
    assert 58 < result.psnr_to_torch < 62
    module = toy_hybrid().hybrid()
    with torch.no_grad():
        exact = np.mean([psnr(module(noisy), clean) for noisy, clean in pairs()])
    assert result.psnr_cost == pytest.approx(exact - result.psnr, abs=1e-4)
    assert abs(result.psnr_cost) > 1e-4
    noisy(5e-3)  # 46 dB
    with pytest.raises(VerificationError, match="against torch, fp16 needs 50"):
        verify_bundle(half, pairs())
    noisy(5e-2)
    with pytest.raises(VerificationError, match="allowed is 2e-02"):
        verify_bundle(half, pairs())
