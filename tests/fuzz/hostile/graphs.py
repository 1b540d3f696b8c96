"""ONNX files."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.hostile.damage import NAMES, NUMBERS, damaged


@functools.cache
def model() -> bytes:
    """Return two convolutions with a resize of known size between them."""
    weights = {
        "w": np.full((4, 3, 3, 3), 0.01, np.float32),
        "v": np.full((3, 4, 1, 1), 0.1, np.float32),
        "shape": np.array([1, 4, -1], np.int64),
        "back": np.array([1, 4, 16, 16], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"], axis=1),
        helper.make_node("Reshape", ["c", "back"], ["d"]),
        helper.make_node("Conv", ["d", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 16, 16))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def command(path: Path) -> list[str]:
    return ["inspect", str(path), "--size", "16"]


def graph_bytes(rng: Random, folder: Path) -> list[str]:
    """A model damaged anywhere."""
    path = folder / "b.onnx"
    path.write_bytes(damaged(model(), rng))
    return command(path)


def graph_lies(rng: Random, folder: Path) -> list[str]:
    """A model that parses: wild sizes and attributes, functions, loops, nesting, names."""
    made = onnx.ModelProto.FromString(model())
    ways = (_sizes, _attributes, _functions, _fill, _loop, _nest, _rename, _sizes, _attributes)
    for way in rng.sample(ways, rng.choice((1, 1, 2))):
        way(made, rng)
    path = folder / "l.onnx"
    path.write_bytes(made.SerializeToString())
    return command(path)


def _sizes(made: onnx.ModelProto, rng: Random) -> None:
    tensor = rng.choice(made.graph.initializer)
    way = rng.randrange(4)
    if way == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif way == 1:
        values = [rng.choice((*NUMBERS, 1, 4, 16)) for _ in range(4)]
        tensor.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), tensor.name))
    elif way == 2:
        tensor.data_type = rng.randrange(30)
    else:
        value = rng.choice((*made.graph.input, *made.graph.output))
        shape = value.type.tensor_type.shape
        shape.dim[rng.randrange(4)].dim_value = rng.choice(NUMBERS)


def _attributes(made: onnx.ModelProto, rng: Random) -> None:
    node = rng.choice(made.graph.node)
    for name in ("pads", "dilations", "strides", "kernel_shape"):
        if rng.random() < 0.5:
            value = [rng.choice((*NUMBERS, 2, 1000)) for _ in range(rng.choice((2, 4)))]
            node.attribute.append(helper.make_attribute(name, value))
    node.attribute.append(helper.make_attribute("group", rng.choice(NUMBERS)))


def _functions(made: onnx.ModelProto, rng: Random) -> None:
    depth = rng.choice((3, 26, 60))
    for level in range(depth):
        inner = "Relu" if level == depth - 1 else f"f{level + 1}"
        domain = "" if level == depth - 1 else "own"
        nodes = [
            helper.make_node(inner, ["p"], ["q"], domain=domain),
            helper.make_node(inner, ["q"], ["r"], domain=domain),
        ]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        made.functions.append(helper.make_function("own", f"f{level}", ["p"], ["r"], nodes, opsets))
    made.opset_import.append(helper.make_opsetid("own", 1))
    _insert(made, helper.make_node("f0", ["x"], ["x2"], domain="own"))


def _insert(made: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put nodes that make `x2` of `x` before the rest."""
    rest = list(made.graph.node)
    rest[0].input[0] = "x2"
    del made.graph.node[:]
    made.graph.node.extend([*nodes, *rest])


def _fill(made: onnx.ModelProto, rng: Random) -> None:
    shape = np.array([rng.choice((2**18, 2**31, -1, 2**40)) for _ in range(2)], np.int64)
    made.graph.initializer.append(numpy_helper.from_array(shape, "wild"))
    kind = rng.choice(("ConstantOfShape", "Expand", "Tile", "Range"))
    inputs = {"ConstantOfShape": ["wild"], "Range": ["wild"] * 3}.get(kind, ["w", "wild"])
    _insert(
        made,
        helper.make_node(kind, inputs, ["filled"]),
        helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["x2"]),
    )


def _loop(made: onnx.ModelProto, rng: Random) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["v2"])],
        "body",
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (
            ("i", TensorProto.INT64, ()), ("go", TensorProto.BOOL, ()),
            ("v", TensorProto.FLOAT, (1,)),
        )],
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (
            ("on", TensorProto.BOOL, ()), ("v2", TensorProto.FLOAT, (1,)),
        )],
    )  # fmt: skip
    made.graph.initializer.append(numpy_helper.from_array(np.array(2**60, np.int64), "times"))
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    made.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    _insert(
        made,
        helper.make_node("Loop", ["times", "true", "one"], ["end"], body=body),
        helper.make_node("Mul", ["x", "end"], ["x2"]),
    )


def _nest(made: onnx.ModelProto, rng: Random) -> None:
    inner = helper.make_graph([], "g", [], [])
    for _ in range(rng.choice((2, 20, 90))):
        node = helper.make_node("If", ["true"], ["q"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "g", [], [])
        if inner.ByteSize() > 2**22:
            break
    _insert(made, *inner.node, helper.make_node("Relu", ["x"], ["x2"]))


def _rename(made: onnx.ModelProto, rng: Random) -> None:
    name = rng.choice(NAMES)
    rng.choice(made.graph.node).name = name
    old = rng.choice(made.graph.initializer).name
    for node in made.graph.node:
        for i, each in enumerate(node.input):
            if each == old:
                node.input[i] = name
    next(t for t in made.graph.initializer if t.name == old).name = name


def external(rng: Random, folder: Path) -> list[str]:
    """A model whose weights are in files outside, behind links, or shorter than it says."""
    made = onnx.ModelProto.FromString(model())
    tensor = made.graph.initializer[0]
    data = tensor.raw_data
    secret = folder / "secret"
    secret.mkdir()
    (secret / "w.bin").write_bytes(data)
    inside = folder / "model"
    inside.mkdir()
    way = rng.randrange(6)
    location = ("w.bin", "../secret/w.bin", str(secret / "w.bin"), "a/w.bin", "w.bin", "w.bin")[way]
    if way == 0:
        (inside / "w.bin").symlink_to(secret / "w.bin")
    elif way == 3:
        (inside / "a").symlink_to(secret)
    elif way == 4:
        os.link(secret / "w.bin", inside / "w.bin")
    elif way == 5:
        (inside / "w.bin").write_bytes(data[: rng.randrange(len(data) + 1)])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": rng.choice((0, 0, *NUMBERS)), "length": len(data)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    path = inside / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return command(path)
