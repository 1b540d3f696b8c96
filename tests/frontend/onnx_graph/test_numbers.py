"""make_float32: graphs in other precisions compute in float32, with the weights that they hold."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import distillc
from distillc.frontend.onnx_graph.load import reference
from distillc.frontend.onnx_graph.read import open_model, read_graph

from .test_load import said_of
from .test_module import save


class Scaled(nn.Module):
    """Computes in half precision inside, and divides by a number that follows from the size."""

    def __init__(self, inside: torch.dtype) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1).to(inside)
        self.inside = inside

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv(image.to(self.inside))
        width = torch.tensor(x.shape[3]).to(self.inside)
        return image + (x / width.sqrt()).to(image.dtype)


@pytest.mark.parametrize("inside", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ends", [torch.float32, None])
def test_other_precisions(
    inside: torch.dtype,
    ends: torch.dtype | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    module, path = Scaled(inside), tmp_path / "m.onnx"
    example = torch.rand(1, 3, 16, 16).to(ends or inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["x"],
            dynamic_axes={"x": {2: "h", 3: "w"}},
            dynamo=False,
        )
    net = distillc.load(path)
    name = str(inside).removeprefix("torch.")
    assert said_of(caplog) == [f"m.onnx: holds {name}: all of it is computed in float32"]
    assert {each.dtype for each in net.module.parameters()} == {torch.float32}
    x = torch.rand(1, 3, 24, 20)
    wide = Scaled(torch.float32)
    wide.conv.load_state_dict(module.conv.float().state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net.module(x), wide(x), atol=1e-5, rtol=0)
        torch.testing.assert_close(reference(path)(x), wide(x), atol=1e-5, rtol=0)


def test_float64_that_only_sizes_meet_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["d", "third"], ["m"]),
        helper.make_node("Floor", ["m"], ["f"]),
        helper.make_node("Cast", ["f"], ["sizes"], to=TensorProto.INT64),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"third": np.float64([1, 1, 2, 2])}, (1, 3, 8, "w"))
    model, changes = open_model(path)
    assert changes == []
    assert model.graph.initializer[0].data_type == TensorProto.DOUBLE


def test_the_floor_of_a_mask_stays_finite(tmp_path: Path) -> None:
    floor = {"floor": np.float64([-1.7e308, np.inf, 0.25])}
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["d", "floor"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = read_graph(save(tmp_path / "m.onnx", nodes, floor, (1, 3, 8, 3)))
    limit = np.finfo(np.float32).max
    np.testing.assert_array_equal(graph.constants["floor"], np.float32([-limit, np.inf, 0.25]))


def test_constants_of_nodes(tmp_path: Path) -> None:
    half = numpy_helper.from_array(np.float16([0.5]))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=half),
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "c"], ["z"]),
        helper.make_node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]
    path = save(tmp_path / "m.onnx", nodes, {})
    assert TensorProto.FLOAT16 in {
        each.type.tensor_type.elem_type for each in onnx.load(path).graph.value_info
    }
    graph = read_graph(path)
    assert {each.dtype for each in graph.constants.values()} == {np.dtype(np.float32)}
    x = torch.rand(1, 4, 6, 8)
    torch.testing.assert_close(reference(path)(x), x / 2)
