"""ONNX files that would grow, loop, or read files that are not theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from distillc.errors import CheckpointError, DistillcError, LoweringError
from distillc.frontend.load import load
from distillc.frontend.onnx_graph.bounds import LARGEST_VALUE, check_bounds
from tests.fuzz.hostile import graphs

PATH = Path("m.onnx")


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.ModelProto.FromString(graphs.model())


def refused(model: onnx.ModelProto, said: str, path: Path = PATH) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        check_bounds(model, path)
    assert caught.value.where == str(path)


def test_a_good_model_passes_and_loads(model: onnx.ModelProto, tmp_path: Path) -> None:
    check_bounds(model, PATH)
    (tmp_path / "m.onnx").write_bytes(graphs.model())
    net = load(tmp_path / "m.onnx")
    assert (net.size, net.scale, net.fixed_size) == ((16, 16), 1, True)


@pytest.mark.parametrize("depth", [26, 60, 2000])
def test_functions_that_double(depth: int, model: onnx.ModelProto, tmp_path: Path) -> None:
    class Deep(Random):
        def choice(self, seq: object) -> int:  # type: ignore[override]
            return depth

    graphs._functions(model, Deep())
    refused(model, "its functions make")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="its functions make"):
        load(tmp_path / "m.onnx")


def test_a_function_that_calls_itself(model: onnx.ModelProto) -> None:
    node = helper.make_node("f", ["p"], ["q"], domain="own")
    opsets = [helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "f", ["p"], ["q"], [node], opsets))
    graphs._insert(model, helper.make_node("f", ["x"], ["x2"], domain="own"))
    refused(model, "its functions make")


@pytest.mark.parametrize("extent", [-1, 2**31, 2**40, 2**62])
def test_extents(extent: int, model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = extent
    refused(model, "has the shape")


@pytest.mark.parametrize("extent", [-1, 2**31 + 1, 2**40])
def test_extents_of_the_image(extent: int, model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = extent
    refused(model, "x has the shape")


def test_data_that_is_not_its_size(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data += b"more"
    refused(model, "bytes for")


@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.UINT4, TensorProto.BFLOAT16])
def test_small_types_have_their_size(dtype: int, model: onnx.ModelProto) -> None:
    values = np.array([1, 2, 3])
    model.graph.initializer.append(helper.make_tensor("small", dtype, [3], values))
    check_bounds(model, PATH)


def test_long_names(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].name = "n" * 2**20
    refused(model, "a name has 1048576 letters")


@pytest.mark.parametrize(
    ("way", "error"), [(graphs._loop, LoweringError), (graphs._fill, DistillcError)]
)
def test_what_runs_for_ever_or_fills_the_memory(
    way: Callable[[onnx.ModelProto, Random], None],
    error: type[DistillcError],
    model: onnx.ModelProto,
    tmp_path: Path,
) -> None:
    way(model, Random(3))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(error):
        load(tmp_path / "m.onnx")


@pytest.fixture
def external(model: onnx.ModelProto, tmp_path: Path) -> Callable[..., Path]:
    """Write the model with its first weight at a location."""

    def make(location: str, **entries: object) -> Path:
        tensor = model.graph.initializer[0]
        data = tensor.raw_data
        folder = tmp_path / "model"
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret/w.bin").write_bytes(data)
        folder.mkdir()
        (folder / "own.bin").write_bytes(data)
        (folder / "below").mkdir()
        (folder / "below/w.bin").write_bytes(data)
        (folder / "link.bin").symlink_to(folder / "own.bin")
        (folder / "linked").symlink_to(tmp_path / "secret")
        os.link(tmp_path / "secret/w.bin", folder / "hard.bin")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "length": len(data), **entries}.items():
            tensor.external_data.add(key=key, value=str(value))
        path = folder / "m.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.mark.parametrize("location", ["own.bin", "below/w.bin", "./own.bin"])
def test_data_beside_the_model(location: str, external: Callable[..., Path]) -> None:
    net = load(external(location))
    weights = {tuple(each.shape): each for each in net.module.parameters()}
    wanted = numpy_helper.to_array(onnx.ModelProto.FromString(graphs.model()).graph.initializer[0])
    np.testing.assert_array_equal(weights[wanted.shape].numpy(), wanted)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../secret/w.bin", "outside the model's folder"),
        ("below/../../secret/w.bin", "outside the model's folder"),
        ("/etc/passwd", "outside the model's folder"),
        ("", "outside the model's folder"),
        ("link.bin", "behind a symbolic link"),
        ("linked/w.bin", "behind a symbolic link"),
        ("hard.bin", "behind a hard link"),
        ("none.bin", "is missing"),
        ("below", "is missing"),
    ],
)
def test_data_elsewhere(location: str, said: str, external: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=said):
        load(external(location))


@pytest.mark.parametrize(
    "entries",
    [{"offset": 1}, {"offset": -1}, {"offset": 2**63}, {"length": 1}, {"length": LARGEST_VALUE},
     {"length": -1}, {"offset": "x"}],
)  # fmt: skip
def test_data_that_is_not_all_there(
    entries: dict[str, object], external: Callable[..., Path]
) -> None:
    path = external("own.bin", **entries)
    with pytest.raises(CheckpointError, match="takes 432 bytes from"):
        check_bounds(onnx.load(path, load_external_data=False), path)
