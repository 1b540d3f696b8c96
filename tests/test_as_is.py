"""Bundles of networks as they are: what ONNX Runtime or torch computes, nothing distilled."""

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
from distillc.frontend.user_code import import_class
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
        distillc.convert_as_is(model, "host", (16, 16), out=out, budget="smoke", work_dir=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [LOCK]


def test_options_about_distillation_are_refused_for_onnx(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--max-drop", "1", "--min-speedup", "2", "--family", "conv", "--data", "x"]
    words += ["--keep", "a", "--replace", "a=conv", "--seed", "0", "--arch", "a:B"]
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(model), *words])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert all(word in error for word in words if word.startswith("--"))
    assert "nothing is distilled" in error


def test_convert_names_the_other_function(model: Path) -> None:
    with pytest.raises(UsageError, match=r"distillc\.convert_as_is"):
        distillc.convert(model)


def test_python_refuses_what_is_about_checkpoints(model: Path) -> None:
    with pytest.raises(UsageError, match="where: arch, trust_pickle"):
        distillc.convert_as_is(model, arch="a:B", trust_pickle=True)


def test_the_old_name_is_the_same_function() -> None:
    assert distillc.convert_onnx is distillc.convert_as_is


GATED = """
import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(3, 2 * channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x):
        a, b = self.first(x).chunk(2, 1)
        return x + self.last(a * b * (a * b).mean((2, 3), keepdim=True))
"""
"""As NAFNet: gates and pooling, no attention."""


@pytest.fixture
def gated(tmp_path: Path) -> list[str]:
    """Words that convert a checkpoint of a network without attention."""
    torch.manual_seed(0)
    (tmp_path / "nets.py").write_text(GATED)
    arch = f"{tmp_path}/nets.py:Gated"
    module = import_class(arch)(8)
    torch.save({"params": module.state_dict()}, tmp_path / "gated.pth")
    words = ["convert", f"{tmp_path}/gated.pth", "--arch", arch, "--arch-args", '{"channels": 8}']
    words += ["--target", "host", "--size", "30x26", "--budget", "smoke"]
    return [*words, "--out", f"{tmp_path}/gated.distillc", "--work-dir", f"{tmp_path}/work"]


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(words)
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


def test_a_network_without_attention_is_compiled_as_it_is(
    gated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = said(gated, capsys)
    assert code == 5
    assert "no attention" in error
    assert "`distillc convert --no-distill`" in error
    code, printed, error = said([*gated, "--no-distill"], capsys)
    assert code == 0, error
    assert "largest difference from torch" in printed
    bundle = Bundle.open(tmp_path / "gated.distillc")
    assert bundle.manifest["metrics"]["verification"]["against"] == "torch"
    module = import_class(f"{tmp_path}/nets.py:Gated")(8)
    module.load_state_dict(torch.load(tmp_path / "gated.pth")["params"])
    x = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(bundle.run(x.numpy()), module(x).numpy(), atol=1e-4)


def test_a_network_with_attention_keeps_all_of_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = distillc.convert_as_is(
        tiny_checkpoint, "host", (16, 24), out=tmp_path / "x", budget="smoke", work_dir=tmp_path
    )
    assert "decisions" not in Bundle.open(bundle.path).manifest
    net = distillc.load(tiny_checkpoint)
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(bundle.run(x.numpy()), net.module(x).numpy(), atol=1e-4)


def test_options_about_distillation_are_refused_with_no_distill(
    gated: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--max-drop", "1", "--family", "conv", "--data", "x", "--stop-after", "trace"]
    code, _, error = said([*gated, "--no-distill", *words], capsys)
    assert code == 2
    assert "where: --data, --family, --max-drop, --stop-after\n" in error
    assert "leave out --no-distill" in error
    assert not (tmp_path / "work").exists()
