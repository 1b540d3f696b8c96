"""Reads and writes at computed places: each node computes what ONNX Runtime computes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

from .test_module import VECTOR, compare, ints, save

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def grid(x: Tensor) -> Tensor:
    """Places in and around an image, of a tensor (1, 4, H, W): (1, H, W, 2)."""
    return (1.2 * x[:, :2]).sin().permute(0, 2, 3, 1) * 1.3


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_grids_of_both_exporters(
    dynamo: bool, mode: str, padding: str, align: bool, tmp_path: Path
) -> None:
    class Sampled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.grid_sample(x, grid(x), mode, padding, align)

    path, x = tmp_path / "m.onnx", torch.randn(1, 4, 6, 8, generator=torch.Generator())
    options: dict[str, Any] = {"verbose": False} if dynamo else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Sampled(), (x,), path, opset_version=20 if dynamo else 16, dynamo=dynamo, **options
        )
    module = compare(path, x)
    torch.testing.assert_close(module(x), Sampled()(x), rtol=1e-4, atol=1e-5)


PLACES = {
    "GatherElements": ("GatherElements", {"axis": 2}, ["x", "places"], {}),
    "ScatterElements": ("ScatterElements", {"axis": 2}, ["x", "few", "rows"], {}),
    "ScatterElements add": (
        "ScatterElements",
        {"axis": 2, "reduction": "add"},
        ["x", "places", "x"],
        {},
    ),
    "ScatterElements max": (
        "ScatterElements",
        {"axis": 3, "reduction": "max"},
        ["x", "places", "x"],
        {},
    ),
    "Gather": ("Gather", {"axis": 1}, ["x", "row"], {}),
    "Gather from a table": ("Gather", {}, ["table", "places"], {"table": VECTOR}),
}


@pytest.mark.parametrize("name", PLACES)
def test_places_that_depend_on_the_image(name: str, tmp_path: Path) -> None:
    kind, options, inputs, constants = PLACES[name]
    nodes = [
        helper.make_node("Sin", ["x"], ["s"]),
        helper.make_node("Mul", ["s", "most"], ["m"]),
        helper.make_node("Cast", ["m"], ["places"], to=INT),  # -3 to 3
        helper.make_node("ReduceMax", ["places", "one"], ["row"], keepdims=0),
        helper.make_node("Slice", ["places", "zero", "first", "axis"], ["few"]),
        helper.make_node("Slice", ["x", "zero", "first", "axis"], ["rows"]),
        helper.make_node(kind, inputs, ["y"], **options),
    ]
    used = {
        "most": np.float32(3.9),
        "one": ints([1]),
        "zero": ints([0]),
        "first": ints([1]),
        "axis": ints([2]),
        **constants,
    }
    compare(save(tmp_path / "m.onnx", nodes, used, opset=18))


def test_places_of_several_axes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GatherND", ["x", "there"], ["rows"]),
        helper.make_node("Mul", ["rows", "two"], ["twice"]),
        helper.make_node("ScatterND", ["x", "there", "twice"], ["z"]),
        helper.make_node("ScatterND", ["z", "there", "rows"], ["y"], reduction="add"),
    ]
    constants = {"there": ints([[0, 1, 2], [0, -1, -2]]), "two": np.float32(2)}
    compare(save(tmp_path / "m.onnx", nodes, constants))


CASES: list[tuple[str, dict[str, Any], list[Any], bool]] = [
    ("ArgMax", {"axis": 1}, [], True),
    ("ArgMin", {"axis": -1, "keepdims": 0}, [], True),
    ("CumSum", {}, [np.int64(2)], False),
    ("CumSum", {"reverse": 1}, [np.int64(-1)], False),
    ("TopK", {"axis": 1}, [ints([2])], False),
    ("TopK", {"largest": 0}, [ints([3])], False),
    ("Trilu", {}, [], False),
    ("Trilu", {"upper": 0}, [np.int64(-1)], False),
]


@pytest.mark.parametrize(("name", "options", "inputs", "whole"), CASES)
def test_other_operators(
    name: str, options: dict[str, Any], inputs: list[Any], whole: bool, tmp_path: Path
) -> None:
    constants = {f"c{i}": each for i, each in enumerate(inputs)}
    out = ["a", "b"] if name == "TopK" else ["a"]
    nodes = [helper.make_node(name, ["x", *constants], out, **options)]
    if name == "TopK":  # both results count
        nodes += [
            helper.make_node("Cast", ["b"], ["c"], to=FLOAT),
            helper.make_node("Add", ["a", "c"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("Cast", ["a"], ["y"], to=FLOAT))
    compare(save(tmp_path / "m.onnx", nodes, constants))


def test_one_hot(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["p"], axis=1, keepdims=0),
        helper.make_node("OneHot", ["p", "count", "values"], ["y"], axis=1),
    ]
    constants = {"count": ints(5), "values": np.float32([-1, 2])}
    compare(save(tmp_path / "m.onnx", nodes, constants))


@pytest.mark.parametrize("stride", [2, 3])
def test_pooling_with_places(stride: int, tmp_path: Path) -> None:
    """The places are those of the whole tensor, not of each image."""
    window = {"kernel_shape": [2, 2], "strides": [stride, stride]}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p", "places"], **window),
        helper.make_node("Mul", ["p", "two"], ["q"]),
        helper.make_node("MaxUnpool", ["q", "places", "shape"], ["y"], **window),
    ]
    constants = {"two": np.float32(2), "shape": ints([1, 4, 6, 8])}
    compare(save(tmp_path / "m.onnx", nodes, constants, output=(1, 4, 6, 8)))
