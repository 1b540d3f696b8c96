"""Bundle: checked when opened, named only when verified, whole or not there at all."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillc.errors import StorageError, UsageError, VerificationError
from distillc.runtime.benchmark import summarise
from distillc.runtime.bundle import FORMAT, Bundle
from distillc.workdir import file_digest

from .conftest import toy_hybrid

X = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)


def rewrite(bundle: Bundle, **entries: Any) -> None:
    path = bundle.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_round_trip(bundle: Bundle, tmp_path: Path) -> None:
    saved = bundle.save(tmp_path / "deep" / "toy.distillc")
    opened = Bundle.open(str(tmp_path / "deep" / "toy.distillc"))
    assert opened.manifest == saved.manifest == bundle.manifest
    with torch.no_grad():
        wanted = toy_hybrid().hybrid()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(opened.run(X), wanted, atol=1e-4)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["toy.distillc"]


def test_what_the_manifest_says(verified: Bundle) -> None:
    manifest = verified.manifest
    assert manifest["format"] == FORMAT
    assert (manifest["name"], manifest["target"]) == ("toy", "host")
    assert manifest["input_shape"] == manifest["output_shape"] == [1, 3, 16, 16]
    assert set(manifest["files"]) == {
        "model.so",
        "distillc.h",
        "hybrid.pt2",
        "weights.safetensors",
        "model.onnx",
        "reference.safetensors",
        "toy-bench",
        "restore.c",
        "CMakeLists.txt",
        "Model.kt",
        "distillc_jni.c",
    }
    assert manifest["bench"] == "toy-bench"
    assert "android" not in manifest
    assert set(manifest["versions"]) >= {"distillc", "torch", "apache-tvm", "python"}
    assert manifest["verified"] is True


def test_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        Bundle.open(tmp_path / "nothing")
    with pytest.raises(UsageError, match="not a bundle"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize("name", ["model.so", "hybrid.pt2", "weights.safetensors", "model.onnx"])
def test_tampered_and_missing_files_are_named(bundle: Bundle, name: str) -> None:
    path = bundle.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match="changed after the bundle was made") as caught:
        Bundle.open(bundle.path)
    assert name in str(caught.value.where)
    path.unlink()
    with pytest.raises(VerificationError, match="missing") as caught:
        Bundle.open(bundle.path)
    assert name in str(caught.value.where)


@pytest.mark.parametrize(("form", "hint"), [(FORMAT + 1, "upgrade"), (FORMAT - 1, "convert again")])
def test_another_format(bundle: Bundle, form: int, hint: str) -> None:
    rewrite(bundle, format=form)
    with pytest.raises(VerificationError, match=f"has format {form}") as caught:
        Bundle.open(bundle.path)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"files": 3, "format": 3}',
        '{"files": {}, "format": "x"}',
        "\udcff",
    ],
)
def test_damaged_manifest(bundle: Bundle, text: str) -> None:
    (bundle.path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(VerificationError, match="manifest is damaged"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/hostname", "..", ""])
def test_files_outside_the_folder_are_refused(bundle: Bundle, name: str) -> None:
    secret = bundle.path.with_name("secret")
    secret.write_text("of somebody else")
    rewrite(bundle, files={**bundle.manifest["files"], name: file_digest(secret)})
    with pytest.raises(VerificationError, match=r"not a plain file name|at least 1 character"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("name", ["model.so", "weights.safetensors"])
def test_files_without_a_hash_are_refused(bundle: Bundle, name: str) -> None:
    """What is run must be what was made."""
    rewrite(bundle, files={k: v for k, v in bundle.manifest["files"].items() if k != name})
    with pytest.raises(VerificationError, match=f"files has no hash of {name}"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    ("x", "got"),
    [
        (X.astype(np.float64), "float64"),
        (X[:, :1], r"\(1, 1, 16, 16\)"),
        (X[:, :, :0], r"\(1, 3, 0, 16\)"),
        (X[0], r"\(3, 16, 16\)"),
        (torch.from_numpy(X), "Tensor"),
        (None, "NoneType"),
    ],
)
def test_wrong_input(verified: Bundle, x: Any, got: str) -> None:
    with pytest.raises(UsageError, match=rf"shape \(N, 3, H, W\), not .*{got}"):
        verified.run(x)


def test_smaller_and_larger_images(verified: Bundle) -> None:
    mirrored = np.concatenate([X[..., :8], X[..., 7::-1]], axis=-1)
    np.testing.assert_array_equal(verified.run(X[..., :8]), verified.run(mirrored)[..., :8])
    large = np.tile(X, (1, 1, 3, 2))[:, :, :40, :24]
    assert verified.run(large).shape == large.shape
    np.testing.assert_array_equal(verified.run(large), verified.run(large, overlap=4))
    assert not np.array_equal(verified.run(large, overlap=8), verified.run(large))


def test_input_in_another_memory_order(verified: Bundle) -> None:
    turned = np.asfortranarray(X)
    np.testing.assert_array_equal(verified.run(turned), verified.run(X))


def test_unknown_device(verified: Bundle) -> None:
    with pytest.raises(UsageError, match="unknown device 'phone'") as caught:
        verified.run(X, device="phone")
    assert "known devices: adb, emulator, host, ssh" in str(caught.value)


def test_unverified_gets_no_name(other: Bundle, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="not verified"):
        other.save(tmp_path / "other.distillc")
    assert list(tmp_path.iterdir()) == []


def test_taken_name(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "toy.distillc"
    bundle.save(path)
    with pytest.raises(StorageError, match="exists already"):
        bundle.save(path)
    saved = bundle.annotate({"seed": 7}).save(path, overwrite=True)
    assert saved.manifest["seed"] == 7
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "toy.distillc"]


def test_full_disk_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, to: Path, **_: Any) -> None:
        Path(to).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(to))

    monkeypatch.setattr(shutil, "copyfile", full)
    out = tmp_path / "out"
    with pytest.raises(StorageError, match="disk is full") as caught:
        bundle.save(out / "toy.distillc")
    assert "free some space" in str(caught.value)
    assert list(out.iterdir()) == []


def test_failed_overwrite_keeps_the_old_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "toy.distillc"
    before = bundle.save(path).manifest

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError):
        bundle.save(path, overwrite=True)
    assert Bundle.open(path).manifest == before


@pytest.mark.parametrize("name", ["model.so", "hybrid.pt2"])
def test_a_changed_bundle_replaces_nothing(bundle: Bundle, tmp_path: Path, name: str) -> None:
    path = tmp_path / "toy.distillc"
    before = bundle.save(path).manifest
    with (bundle.path / name).open("ab") as stream:
        stream.write(b"changed")
    with pytest.raises(VerificationError, match="changed after") as caught:
        bundle.save(path, overwrite=True)
    assert str(bundle.path / name) == caught.value.where
    assert Bundle.open(path).manifest == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "toy.distillc"]


def test_place_that_cannot_be_written(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        bundle.save(tmp_path / "file" / "toy.distillc")


def test_annotations_are_on_disk(bundle: Bundle) -> None:
    (bundle.path / "report.html").write_text("<html>")
    (bundle.path / "notes.txt").write_text("of the user")
    noted = bundle.annotate({"seed": 7}, ["report.html"])
    assert Bundle.open(bundle.path).manifest == noted.manifest
    assert noted.manifest["seed"] == 7
    assert "report.html" in noted.manifest["files"]
    assert "notes.txt" not in noted.manifest["files"]
    assert noted.manifest["verified"] is True


def test_annotations_do_not_bless_a_changed_file(bundle: Bundle) -> None:
    manifest = (bundle.path / "manifest.json").read_bytes()
    with (bundle.path / "model.so").open("ab") as stream:
        stream.write(b"changed")
    with pytest.raises(VerificationError, match="changed after"):
        bundle.annotate({"seed": 7})
    assert (bundle.path / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("entry", [{"scale": 2}, {"task": "weave"}, {"seed": {1, 2}}])
def test_annotations_that_no_manifest_has(bundle: Bundle, entry: dict[str, Any]) -> None:
    manifest = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="manifest"):
        bundle.annotate(entry)
    assert (bundle.path / "manifest.json").read_bytes() == manifest


def test_figures_that_are_not_finite_become_null(bundle: Bundle) -> None:
    bundle.annotate({"figures": [math.nan, math.inf, 1.5]})
    assert Bundle.open(bundle.path).manifest["figures"] == [None, None, 1.5]


def test_names_that_no_folder_has(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a\0b", "x" * 300, "loop"):
        with pytest.raises(UsageError, match=r"not a bundle|does not exist"):
            Bundle.open(tmp_path / name)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_that_make_no_sense(verified: Bundle, threads: int) -> None:
    with pytest.raises(UsageError, match="threads"):
        verified.run(X, threads=threads)


def test_statistics() -> None:
    stats = summarise(tuple(map(float, range(1, 12))), 1024, 2, "host")
    assert (stats.p10_ms, stats.median_ms, stats.p90_ms) == (2.0, 6.0, 10.0)
    assert (stats.runs, stats.peak_bytes, stats.threads, stats.device) == (11, 1024, 2, "host")
