"""An ONNX file becomes a bundle that computes what ONNX Runtime computes with the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import distillc
from distillc.cli import main
from distillc.errors import UsageError, VerificationError
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.padding import Padded
from distillc.runtime import verify as verify_module
from distillc.runtime.bundle import Bundle
from distillc.runtime.verify import ORIGINAL, verify_bundle
from distillc.stages import LOCK
from tests.frontend.onnx_graph.test_load import export
from tests.passes.toy import toy_network

SIZE = (30, 26)  # the toy takes multiples of 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("image", "restored")}
    path = tmp_path_factory.mktemp("onnx") / "toy.onnx"
    return export(toy_network().module, path, (16, 16), dynamic_axes=axes)


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    """What the command line makes of the model."""
    out = model.parent / "toy.distillc"
    words = ["convert", str(model), "--target", "host", "--size", "30x26", "--out", str(out)]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--budget", "smoke", "--work-dir", str(model.parent / "work")])
    assert not caught.value.code
    return Bundle.open(out)


def test_the_bundle_computes_what_onnx_runtime_does(model: Path, bundle: Bundle) -> None:
    x = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    net = distillc.load(model)
    wanted = Padded(OnnxRuntime(model), net.fitting(SIZE))(x)
    np.testing.assert_allclose(bundle.run(x.numpy()), wanted.numpy(), atol=1e-4)


def test_the_manifest_says_where_it_came_from(model: Path, bundle: Bundle) -> None:
    facts = bundle.manifest
    assert facts["verified"] is True
    assert facts["source"]["path"] == "toy.onnx"
    assert facts["source"]["architecture"].startswith("ONNX graph")
    verification = facts["metrics"]["verification"]
    assert verification["against"] == ORIGINAL
    assert verification["images"] == 1
    assert verification["max_error"] <= 1e-4
    assert ORIGINAL in (bundle.path / "report.html").read_text()
    assert json.dumps(facts)
    assert verify_bundle(bundle).against == "torch"  # later, without the file


def test_another_original_is_noticed(model: Path, bundle: Bundle, tmp_path: Path) -> None:
    proto = onnx.load(model)
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.5, weight.name))
    onnx.save(proto, tmp_path / "other.onnx")
    original = Padded(OnnxRuntime(tmp_path / "other.onnx"), distillc.load(model).fitting(SIZE))
    with pytest.raises(VerificationError, match="differs from the ONNX file in ONNX Runtime"):
        verify_bundle(Bundle(bundle.path, bundle.manifest), original=original)
    verify_bundle(bundle)


def test_what_is_left_of_a_failure(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "TOLERANCE", -1.0)
    out = tmp_path / "toy.distillc"
    with pytest.raises(VerificationError):
        distillc.convert_onnx(model, "host", (16, 16), out=out, budget="smoke", work_dir=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [LOCK]


def test_options_about_distillation_are_refused(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--max-drop", "1", "--min-speedup", "2", "--family", "conv", "--data", "x"]
    words += ["--keep", "a", "--replace", "a=conv", "--seed", "0"]
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(model), *words])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert all(word in error for word in words if word.startswith("--"))
    assert "nothing is distilled" in error


def test_convert_names_the_other_function(model: Path) -> None:
    with pytest.raises(UsageError, match=r"distillc\.convert_onnx"):
        distillc.convert(model)
