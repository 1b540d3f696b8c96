"""read_graph: clean graphs out, and clear errors for what is no network on images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distillc.errors import CheckpointError
from distillc.frontend.onnx_graph.read import read_graph

from .test_module import save

RELU = helper.make_node("Relu", ["x"], ["y"])


def test_constants_are_folded_and_dead_nodes_removed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(np.float32([2]))),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Neg", ["x"], ["dead"]),
        helper.make_node("Identity", ["x"], ["z"]),
        helper.make_node("Mul", ["z", "c"], ["y"]),
    ]
    graph = read_graph(save(tmp_path / "m.onnx", nodes, {"b": np.float32([3])}, (1, 4, "h", 8)))
    assert [node.op_type for node in graph.nodes] in (["Mul"], ["Identity", "Mul"])
    assert graph.constants["c"] == 6
    assert graph.shape == (1, 4, None, 8)
    assert (graph.image, graph.output, graph.opsets) == ("x", "y", {"": 18})


def test_weights_listed_as_inputs_are_no_images(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Mul", ["x", "w"], ["y"])], {"w": [2.0]})
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([2]), "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]))
    model.graph.input.reverse()
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    assert read_graph(path).image == "x"


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00.", b"PK\x03\x04" * 40, b"\x08"])
def test_foreign_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"copy or download it again"):
        read_graph(path)


def test_truncated_files(tmp_path: Path) -> None:
    constants = {"w": np.ones((4, 4, 1, 1), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    content = save(tmp_path / "m.onnx", [node], constants).read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(1, len(content) - 10, 7):
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_graph(cut)


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    constants = {"w": np.ones((4, 4, 3, 3), np.float32)}
    path = save(tmp_path / "m.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], constants)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
    assert read_graph(path).constants["w"].shape == (4, 4, 3, 3)
    (tmp_path / "w").unlink()
    with pytest.raises(CheckpointError, match="external data"):
        read_graph(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_graph(tmp_path / "m.onnx")


@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (1, "c", 6, 8), (4, 6, 8), ("n", 4)])
def test_inputs_that_are_no_image(shape: tuple[int | str, ...], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must take an image \(1, C, H, W\)"):
        read_graph(save(tmp_path / "m.onnx", [RELU], {}, shape))


def test_other_types_and_numbers_of_inputs(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [RELU], {})
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.INT32
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="takes int32, not float32"):
        read_graph(path)
    model = onnx.load(save(path, [RELU], {}))
    model.graph.input.append(helper.make_tensor_value_info("sigma", TensorProto.FLOAT, [1]))
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match="it takes: x, sigma"):
        read_graph(path)
