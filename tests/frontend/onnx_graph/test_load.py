"""distillc.load of ONNX files that torch wrote: sizes, weights and numbers are the network's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper
from torch import nn

import distillc
from distillc.errors import LoweringError, TraceError
from distillc.frontend.formats import is_onnx
from distillc.frontend.onnx_graph import load as load_module
from tests.frontend.test_sizes import Windows

from .test_module import save


def export(
    module: nn.Module,
    path: Path,
    size: tuple[int, int],
    example: torch.Tensor | None = None,
    **options: Any,
) -> Path:
    options = {"input_names": ["image"], "output_names": ["restored"], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.rand(1, 3, *size) if example is None else example,),
            path,
            dynamo=False,
            **options,
        )
    return path


def said_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said to be changed in a file."""
    return [each.getMessage() for each in caplog.records if each.name.endswith("changes")]


@pytest.mark.parametrize("opset", [11, 17])
def test_free_sizes(opset: int, tiny_restormer: nn.Module, tmp_path: Path) -> None:
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("image", "restored")}
    path = export(
        tiny_restormer, tmp_path / "r.onnx", (32, 32), opset_version=opset, dynamic_axes=axes
    )
    net = distillc.load(path)
    assert (net.in_channels, net.scale, net.multiple, net.fixed_size) == (3, 1, 8, False)
    assert (net.name, net.source["path"]) == ("r", "r.onnx")
    assert net.source["architecture"].startswith("ONNX graph, opset ")
    assert "pytorch" in net.source["architecture"]
    total = sum(each.numel() for each in tiny_restormer.parameters())
    assert net.source["parameters"] == pytest.approx(total, rel=0.05)
    x = torch.rand(1, 3, 24, 40)
    with torch.no_grad():
        torch.testing.assert_close(net.module(x), tiny_restormer(x), atol=1e-4, rtol=0)


def test_one_size_and_a_scale(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    net = distillc.load(export(module, tmp_path / "m.onnx", (20, 24)))
    assert (net.size, net.scale, net.fixed_size) == ((20, 24), 2, True)
    with pytest.raises(TraceError, match="runs at 20x24 only"):
        net.at((40, 40))


class Places(nn.Module):
    """Adds a table of positions, so that the size of the export is the only one."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.places = nn.Parameter(torch.rand(1, 12, height, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.conv(x) + self.places, 2)


@pytest.mark.parametrize(("size", "wanted"), [((48, 48), None), ((24, 40), (24, 40))])
def test_free_sizes_that_are_one(
    size: tuple[int, int], wanted: tuple[int, int] | None, tmp_path: Path
) -> None:
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("image", "restored")}
    path = export(Places(*size).eval(), tmp_path / "m.onnx", size, dynamic_axes=axes)
    net = distillc.load(path, size=wanted)
    assert (net.size, net.scale, net.fixed_size) == (size, 2, True)
    with pytest.raises(TraceError, match=f"runs at {size[0]}x{size[1]} only"):
        net.at((72, 72))


def test_free_sizes_that_are_one_which_is_not_found(tmp_path: Path) -> None:
    axes = {"image": {2: "h", 3: "w"}}
    path = export(Places(24, 40).eval(), tmp_path / "m.onnx", (24, 40), dynamic_axes=axes)
    with pytest.raises(TraceError, match="other sizes were tried") as caught:
        distillc.load(path, size=(64, 96))
    assert "the size that the file was exported at with --size" in str(caught.value)


def test_windows_of_seven(tmp_path: Path) -> None:
    axes = {name: {2: "h", 3: "w"} for name in ("image", "restored")}
    path = export(Windows(7).eval(), tmp_path / "m.onnx", (28, 28), dynamic_axes=axes)
    net = distillc.load(path)
    assert (net.multiple, net.square, net.fixed_size) == (7, False, False)


def test_numbers_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(nn.Conv2d(3, 3, 1), tmp_path / "m.onnx", (8, 8))
    monkeypatch.setattr(load_module, "TOLERANCE", -1.0)
    with pytest.raises(LoweringError, match="differs from ONNX Runtime by"):
        distillc.load(path, sandbox=False)  # where the patch is


def test_outputs_that_are_no_images(tmp_path: Path) -> None:
    node = helper.make_node("Flatten", ["x"], ["y"])
    with pytest.raises(TraceError, match="must return an image"):
        distillc.load(save(tmp_path / "m.onnx", [node], {}))


def test_names() -> None:
    assert is_onnx("a/model.onnx")
    assert is_onnx(Path("MODEL.ONNX"))
    assert not is_onnx("onnx.pth")
