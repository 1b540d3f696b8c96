"""OnnxModule: every operator computes what ONNX Runtime computes; what is not known is listed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from distillc.codegen.build.onnx_export import export_onnx
from distillc.errors import LoweringError
from distillc.frontend.onnx_graph.module import OnnxModule
from distillc.frontend.onnx_graph.read import read_graph
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.trace import export_program

SHAPE = (1, 4, 6, 8)
X = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
WEIGHTS = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32)
VECTOR = np.linspace(0.5, 1.5, 4, dtype=np.float32)

Constants = dict[str, Any]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Constants,
    shape: Sequence[int | str] = SHAPE,
    opset: int = 18,
    output: Sequence[int] | None = None,
) -> Path:
    """Write a graph from `x` to `y`."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info("x", TensorProto.FLOAT, shape)],
        [info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def compare(path: Path, x: Tensor = X) -> OnnxModule:
    """Compare a file in torch with the same in ONNX Runtime."""
    module = OnnxModule(read_graph(path))
    torch.testing.assert_close(module(x), OnnxRuntime(path)(x), rtol=1e-5, atol=1e-5)
    return module


UNARY = [
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Mish", "Neg"),
    *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Tanh", "Elu"),
    *("HardSigmoid", "LeakyRelu", "Softmax", "GlobalAveragePool", "GlobalMaxPool", "Transpose"),
]


@pytest.mark.parametrize("name", UNARY)
def test_operators_without_options(name: str, tmp_path: Path) -> None:
    compare(save(tmp_path / "m.onnx", [helper.make_node(name, ["x"], ["y"])], {}))


ints = np.array
CASES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("Add", {}, [np.float32(0.5)]),
    ("Sub", {}, [VECTOR.reshape(4, 1, 1)]),
    ("Mul", {}, [np.float32([[[[2]]]])]),
    ("Div", {}, [np.float32(3)]),
    ("Pow", {}, [np.float32(2)]),
    ("Pow", {}, [np.float32(3)]),
    ("Max", {}, [np.float32(0.1)]),
    ("Min", {}, [VECTOR.reshape(4, 1, 1), np.float32(0.7)]),
    ("Sum", {}, [VECTOR.reshape(4, 1, 1), VECTOR.reshape(4, 1, 1)]),
    ("Mod", {"fmod": 1}, [np.float32(0.3)]),
    ("PRelu", {}, [VECTOR.reshape(4, 1, 1)]),
    ("Clip", {}, [np.float32(-0.5), np.float32(0.5)]),
    ("Clip", {}, [None, np.float32(0.5)]),
    ("Dropout", {}, []),
    ("ReduceMean", {"keepdims": 0}, [ints([1])]),
    ("ReduceSum", {}, [ints([-1, -2])]),
    ("ReduceMax", {}, [ints([2])]),
    ("ReduceMin", {}, []),
    ("ReduceL1", {}, [ints([1])]),
    ("ReduceL2", {}, [ints([-1])]),
    ("ReduceSumSquare", {}, [ints([-1])]),
    ("Reshape", {}, [ints([0, 2, -1, 8])]),
    ("Flatten", {"axis": 2}, []),
    ("Unsqueeze", {}, [ints([0, -1])]),
    ("Expand", {}, [ints([3, 4, 1, 8])]),
    ("Tile", {}, [ints([1, 2, 1, 2])]),
    ("Slice", {}, [ints([1, -100]), ints([2**62, -1]), ints([2, 3]), ints([2, 3])]),
    ("Slice", {}, [ints([-1]), ints([-(2**62)]), ints([3]), ints([-1])]),
    ("Slice", {}, [ints([6]), ints([1]), ints([-1]), ints([-2])]),
    ("Gather", {"axis": 1}, [ints(-1)]),
    ("Gather", {"axis": -1}, [ints([[0, -1], [3, 2]])]),
    ("Pad", {}, [ints([0, 1, 0, 2, 0, 0, 1, 0]), np.float32(0.5)]),
    ("Pad", {"mode": "reflect"}, [ints([0, 0, 1, 2, 0, 0, 3, 0])]),
    ("Pad", {"mode": "edge"}, [ints([1, 2]), None, ints([-1])]),
    ("DepthToSpace", {"blocksize": 2}, []),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, []),
    ("SpaceToDepth", {"blocksize": 2}, []),
    ("Conv", {"strides": [2, 1], "pads": [0, 1, 2, 1]}, [WEIGHTS, VECTOR]),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [WEIGHTS]),
    ("Conv", {"group": 4, "dilations": [2, 2]}, [WEIGHTS[:, :1]]),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [WEIGHTS]),
    ("MatMul", {}, [np.eye(8, 5, dtype=np.float32) - 1]),
    ("Einsum", {"equation": "nchw,cd->ndhw"}, [WEIGHTS[0, :, :, 0]]),
    ("LayerNormalization", {"axis": -2}, [np.ones((6, 8), np.float32)]),
    ("BatchNormalization", {}, [VECTOR, VECTOR, VECTOR, VECTOR]),
    ("InstanceNormalization", {}, [VECTOR, VECTOR]),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, []),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, []),
    ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2], "strides": [1, 2]}, []),
    ("Resize", {"mode": "nearest"}, [None, np.float32([1, 1, 2, 3])]),
    (
        "Resize",
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        [None, np.float32([1, 1, 1.5, 0.5])],
    ),
    ("Resize", {"mode": "linear"}, [None, None, ints([1, 4, 9, 12])]),
    (
        "Resize",
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        [None, np.float32([1, 1, 2, 2])],
    ),
    ("Resize", {"mode": "cubic"}, [None, np.float32([1, 1, 2, 2])]),
]


@pytest.mark.parametrize(
    ("name", "options", "inputs"), CASES, ids=[f"{i}-{each[0]}" for i, each in enumerate(CASES)]
)
def test_operators_with_options(
    name: str, options: dict[str, Any], inputs: list[Any], tmp_path: Path
) -> None:
    constants = {f"c{i}": each for i, each in enumerate(inputs) if each is not None}
    names = [f"c{i}" if each is not None else "" for i, each in enumerate(inputs)]
    node = helper.make_node(name, ["x", *names], ["y"], **options)
    compare(save(tmp_path / "m.onnx", [node], constants))


def test_nodes_after_one_another(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Concat", ["b", "a"], ["c"], axis=1),
        helper.make_node("Greater", ["c", "zero"], ["positive"]),
        helper.make_node("Where", ["positive", "c", "zero"], ["d"]),
        helper.make_node("Cast", ["positive"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["d", "rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["e"], alpha=0.5, transB=1),
        helper.make_node("ReduceMean", ["mask"], ["share"], keepdims=0),
        helper.make_node("Einsum", ["e", "matrix"], ["f"], equation="ij,jk->ik"),
        helper.make_node("Sub", ["share", "f"], ["y"]),
    ]
    constants = {
        "sizes": ints([1, 3]),
        "zero": np.float32(0),
        "rows": ints([-1, 8]),
        "matrix": np.eye(8, dtype=np.float32) + 0.5,
        "bias": np.float32([1]),
    }
    compare(save(tmp_path / "m.onnx", nodes, constants))


def test_sizes_are_no_part_of_the_program(tmp_path: Path) -> None:
    """Shape's start and end, and arithmetic on sizes: of two images of other sizes."""
    nodes = [
        helper.make_node("Shape", ["x"], ["height"], start=2, end=3),
        helper.make_node("Shape", ["x"], ["width"], start=-1),
        helper.make_node("Div", ["height", "two"], ["half"]),
        helper.make_node("Concat", ["one", "eight", "half", "width"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["z"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["z", "zeros"], ["y"]),
    ]
    constants = {"one": ints([1]), "two": ints([2]), "eight": ints([8])}
    path = save(tmp_path / "m.onnx", nodes, constants, (1, 4, "h", "w"))
    module = compare(path)
    compare(path, torch.rand(1, 4, 10, 3))
    program = torch.export.export(module, (X,))
    names = {getattr(node.target, "__name__", "") for node in program.graph.nodes}
    assert not {name for name in names if name.startswith(("sym_", "div", "full"))}


@pytest.mark.parametrize("place", [-1, [-1, 0]])
def test_no_negative_place_is_left(place: Any, tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["x", "place"], ["y"], axis=1)
    module = compare(save(tmp_path / "m.onnx", [node], {"place": ints(place)}))
    program = torch.export.export(module, (X,))
    numbers = [arg for node in program.graph.nodes for arg in node.args if isinstance(arg, int)]
    numbers += [n for each in program.constants.values() for n in each.tolist()]
    assert min(numbers) >= 0


def test_names_of_any_kind(tmp_path: Path) -> None:
    """Names that are no identifiers, that are equal once cleaned, that a module has already."""
    nodes = [
        helper.make_node("Mul", ["x", "a.b"], ["1"], name="values"),
        helper.make_node("Mul", ["1", "a/b"], ["2"], name="/values"),
        helper.make_node("Mul", ["2", "forward"], ["y"]),
    ]
    shape = (4, 1, 1)
    constants = {
        "a.b": VECTOR.reshape(shape),
        "a/b": VECTOR.reshape(shape) + 1,
        "forward": VECTOR.reshape(shape) + 2,
    }
    module = compare(save(tmp_path / "m.onnx", nodes, constants))
    assert len(module.state_dict()) == 3
    assert all(name.removeprefix("weights.").isidentifier() for name in module.state_dict())


def test_group_norm(tmp_path: Path) -> None:
    node = helper.make_node("GroupNormalization", ["x", "scale", "scale"], ["y"], num_groups=2)
    compare(save(tmp_path / "m.onnx", [node], {"scale": VECTOR}, opset=21, output=SHAPE))


def test_names_that_exporters_give(tmp_path: Path) -> None:
    """They do not clash with those that torch gives when the graph is exported again."""
    names = [f"val_{i}" for i in range(12)]
    nodes = [
        helper.make_node("Mul", [before, name], [f"a{i}"])
        for i, (before, name) in enumerate(
            zip(["x", *(f"a{i}" for i in range(11))], names, strict=True)
        )
    ]
    nodes.append(helper.make_node("Reshape", ["a11", "rows"], ["y"]))
    constants = {**dict.fromkeys(names, VECTOR.reshape(4, 1, 1)), "rows": ints([1, 1, -1, 8])}
    module = compare(save(tmp_path / "m.onnx", nodes, constants))
    export_onnx(export_program(module, SHAPE), tmp_path / "again.onnx")


def test_nodes_that_cannot_be_computed_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], name="sizes"),
        helper.make_node("Gather", ["s", "far"], ["n"], name="/known/Gather"),
        helper.make_node("Expand", ["x", "n"], ["y"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, {"far": ints([7])}, output=SHAPE)
    with pytest.raises(LoweringError, match=r"/known/Gather \(Gather\) cannot be computed"):
        OnnxModule(read_graph(path))(X)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="/image/Reshape")]
    path = save(tmp_path / "m.onnx", nodes, {"shape": ints([1, 4, 6, 8])}, (1, 4, "h", 8))
    module = OnnxModule(read_graph(path))
    with pytest.raises(LoweringError, match=r"/image/Reshape \(Reshape\) cannot be computed"):
        module(X[:, :, :5])


def test_old_graphs_are_converted(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["z"], axes=[0]),
        helper.make_node("Squeeze", ["z"], ["y"], axes=[0]),
    ]
    compare(save(tmp_path / "m.onnx", nodes, {}, opset=11))


def test_all_that_is_not_supported_is_listed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Unique", ["x"], ["v", "i"], name="first"),
        helper.make_node("NonZero", ["v"], ["n"], name="second"),
        helper.make_node("Cast", ["n"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Dropout", ["x"], ["p", "kept"], name="third"),
        helper.make_node("MaxPool", ["x"], ["o", "q"], kernel_shape=[6, 8]),
        helper.make_node("Cast", ["q"], ["places"], to=TensorProto.INT64),
        helper.make_node("Flatten", ["places"], ["r"]),
        helper.make_node("Squeeze", ["r"], ["s"]),
        helper.make_node("Reshape", ["x", "s"], ["t"], name="fourth"),
        helper.make_node("Resize", ["t", "", "fac"], ["u"], name="fifth", antialias=1),
        helper.make_node("Resize", ["u", "", "fac"], ["w"], name="sixth", mode="linear"),
        helper.make_node("Cast", ["kept"], ["k"], to=TensorProto.FLOAT),
        helper.make_node("Sum", ["w", "m", "p", "k"], ["y"]),
    ]
    constants = {"fac": np.float32([1, 1, 2, 2])}
    path = save(tmp_path / "m.onnx", nodes, constants)
    with pytest.raises(LoweringError) as caught:
        OnnxModule(read_graph(path))
    text = str(caught.value)
    assert "Unique, in first" in text
    assert "NonZero, in second" in text
    assert "Dropout with further outputs, in third" in text
    assert "Reshape that reads from the image where or how it works, in fourth" in text
    assert "Resize that smooths what it makes smaller, in fifth" in text
    assert "sixth" not in text
