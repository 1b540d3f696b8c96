"""The ends of ONNX graphs: channels that are last or free, and several outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import distillc
from distillc.errors import CheckpointError, UsageError
from distillc.frontend.onnx_graph.load import reference
from distillc.frontend.onnx_graph.read import read_graph

from .test_load import export, said_of
from .test_module import WEIGHTS, save


class Turned(nn.Module):
    """A network whose ends have the channels last, both or one."""

    def __init__(self, first: bool, last: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
        self.first, self.last = first, last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.permute(0, 3, 1, 2) if self.first else x)
        return y.permute(0, 2, 3, 1) if self.last else y


FREE = {"image": {1: "h", 2: "w"}, "restored": {1: "h2", 2: "w2"}}
ALL_FREE = {"image": {0: "n", 1: "h", 2: "w"}, "restored": dict(enumerate("nhwc"))}


@pytest.mark.parametrize("axes", [None, FREE, ALL_FREE])
@pytest.mark.parametrize("last", [True, False])
def test_channels_that_are_last(
    axes: Any, last: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not last and axes:
        axes = {"image": FREE["image"], "restored": {2: "h2", 3: "w2"}}
    module, example = Turned(True, last).eval(), torch.rand(1, 24, 32, 3)
    path = export(module, tmp_path / "m.onnx", (24, 32), example=example, dynamic_axes=axes)
    net = distillc.load(path)
    where = "input and output" if last else "input"
    assert said_of(caplog) == [f"m.onnx: channels are last (NHWC) in its {where}: turned to NCHW"]
    assert (net.in_channels, net.scale, net.fixed_size) == (3, 2, axes is None)
    x = torch.rand(net.input_shape)
    with torch.no_grad():
        wanted = module.net(x)
        torch.testing.assert_close(net.module(x), wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(reference(path)(x), wanted, atol=1e-5, rtol=0)


def test_channels_that_are_last_in_the_output_only(tmp_path: Path) -> None:
    module = Turned(False, True).eval()
    net = distillc.load(export(module, tmp_path / "m.onnx", (24, 32)))
    x = torch.rand(1, 3, 24, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.module(x), module.net(x), atol=1e-5, rtol=0)


def test_channels_that_are_free_are_those_of_the_first_convolution(tmp_path: Path) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    path = save(tmp_path / "m.onnx", [conv], {"w": WEIGHTS}, ("n", "c", "h", "w"))
    assert read_graph(path).shape == (1, 4, None, None)
    net = distillc.load(path)
    assert (net.in_channels, net.multiple, net.fixed_size) == (4, 1, False)


@pytest.mark.parametrize("shape", [(1, 3, 4, 3), (1, 8, 8, 8), (1, 4, "h", "w"), (1, 3, 8, 4)])
def test_channels_that_are_first_stay(shape: tuple[int | str, ...], tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, shape)
    wanted = tuple(each if isinstance(each, int) else None for each in shape)
    assert read_graph(path).shape == wanted


class Several(nn.Module):
    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.kinds = kinds

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.conv(x)
        made = {
            "image": y,
            "half": y[..., ::2, ::2],
            "mask": y[:, :1],
            "mean": y.mean((2, 3)),
            "places": y.argmax(1, keepdim=True),
        }
        return tuple(made[each] for each in self.kinds)


def several(path: Path, *kinds: str) -> tuple[Path, nn.Module]:
    module = Several(*kinds).eval()
    return export(module, path, (16, 16), output_names=list(kinds)), module


@pytest.mark.parametrize("others", [("mean",), ("half", "mask"), ("places",)])
def test_the_only_image_is_taken(
    others: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, module = several(tmp_path / "m.onnx", *others, "image")
    net = distillc.load(path)
    assert said_of(caplog) == [f"m.onnx: returns {', '.join(others)}, image: image is taken"]
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(net.module(x), module(x)[-1], atol=1e-5, rtol=0)


def test_one_of_several_images_is_chosen(tmp_path: Path) -> None:
    path, module = several(tmp_path / "m.onnx", "image", "mask")
    model = onnx.load(path)
    x = torch.rand(1, 3, 16, 16)
    for wanted in ("mask", "1", 1):
        net = distillc.load(path, output=wanted)
        with torch.no_grad():
            torch.testing.assert_close(net.module(x), module(x)[1], atol=1e-5, rtol=0)
        assert net.source["output"] == str(wanted)
    with pytest.raises(UsageError, match=r"returns no '2', but image, mask\n.*--output"):
        distillc.load(path, output=2)
    model.graph.output.append(model.graph.output[0])
    model.graph.output[2].name = "negative"
    model.graph.node.append(helper.make_node("Neg", ["image"], ["negative"]))
    onnx.save(model, path)
    said = r"it returns: image \(1, 3, 16, 16\), mask .*, negative .*\n.*\n.*--output image"
    with pytest.raises(CheckpointError, match=said):
        distillc.load(path)


def test_an_output_that_holds_no_numbers_of_images(tmp_path: Path) -> None:
    path, _ = several(tmp_path / "m.onnx", "places", "mean")
    with pytest.raises(CheckpointError, match="--output places"):
        distillc.load(path)
    model = onnx.load(path)
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.INT64
    with pytest.raises(CheckpointError, match="returns int64, not float32"):
        distillc.load(path, output="places")
