"""Exported programs (`.pt2`)."""

from __future__ import annotations

import functools
import io
import json
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.fuzz.hostile.damage import NUMBERS, altered, damaged, dumped
from tests.fuzz.hostile.small import Small

BAD_CALLS = (
    "max_pool2d_with_indices_backward.default", "adaptive_max_pool2d_backward.default",
    "resize_.default", "set_.default", "as_strided.default", "from_file.default",
    "_embedding_bag.default", "embedding_dense_backward.default", "empty_strided.default",
)  # fmt: skip
GOOD_CALLS = (
    "full.default", "zeros.default", "gather.default", "index.Tensor", "embedding.default",
    "repeat.default", "upsample_nearest2d.vec", "max_unpool2d.default", "roll.default",
    "grid_sampler_2d.default", "conv2d.default", "pad.default", "unfold.default", "eye.default",
    "arange.default", "col2im.default", "pixel_shuffle.default", "tril.default", "matmul.default",
)  # fmt: skip


@functools.cache
def program() -> bytes:
    """Return the small network as torch exports it."""
    buffer = io.BytesIO()
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Small().eval(), (torch.rand(1, 3, 16, 16),)), buffer)
    return buffer.getvalue()


def command(path: Path) -> list[str]:
    return ["inspect", str(path), "--size", "16"]


def program_bytes(rng: Random, folder: Path) -> list[str]:
    """A program damaged anywhere."""
    path = folder / "b.pt2"
    path.write_bytes(damaged(program(), rng))
    return command(path)


def _wild(node: dict[str, Any], rng: Random) -> None:
    """Replace numbers and lists of numbers among a node's arguments."""
    for each in node["inputs"]:
        for kind, value in each["arg"].items():
            if kind == "as_int" and rng.random() < 0.6:
                each["arg"][kind] = rng.choice(NUMBERS)
            if kind == "as_ints" and rng.random() < 0.6:
                each["arg"][kind] = [rng.choice((*NUMBERS, 1, 2, 16)) for _ in value]
            if kind == "as_float":
                each["arg"][kind] = rng.choice((1e308, -1.0, float("nan")))


def _call(target: str, rng: Random, first: str) -> dict[str, Any]:
    """Return a call of an operator with the image and wild numbers."""
    kinds = [{"as_ints": [rng.choice((*NUMBERS, 2, 2**18)) for _ in range(rng.choice((1, 2, 4)))]}]
    kinds += [{"as_int": rng.choice(NUMBERS)}, {"as_float": 1e308}, {"as_bool": True}]
    tensor = {"as_tensor": {"name": first}}
    arguments = [rng.choice((tensor, tensor, *kinds)) for _ in range(rng.randrange(1, 6))]
    return {
        "target": f"torch.ops.aten.{target}",
        "inputs": [{"name": "", "arg": each, "kind": 1} for each in arguments],
        "outputs": [],
        "metadata": {},
        "is_hop_single_tensor_return": None,
    }


def program_graph(rng: Random, folder: Path) -> list[str]:
    """A program whose graph or tables lie: operators, arguments, sizes, names."""
    with zipfile.ZipFile(io.BytesIO(program())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (model,) = (name for name in members if name.endswith("model.json"))
    tables = [name for name in members if name.endswith(".json")]
    content = json.loads(members[model])
    graph = content["graph_module"]["graph"]
    way = rng.randrange(6)
    if way == 0:
        name = rng.choice(tables)
        members[name] = dumped(altered(json.loads(members[name]), rng))
    elif way == 1:
        _wild(rng.choice(graph["nodes"]), rng)
    elif way == 2:
        for value in rng.sample(sorted(graph["tensor_values"]), 2):
            sizes = graph["tensor_values"][value]["sizes"]
            sizes[0:1] = [{"as_int": rng.choice((*NUMBERS, 2**18))}]
    elif way == 3:
        node = rng.choice(graph["nodes"])
        node["target"] = f"torch.ops.aten.{rng.choice((*BAD_CALLS, *GOOD_CALLS))}"
        _wild(node, rng)
    elif way == 4:
        first = rng.choice(sorted(graph["tensor_values"]))
        call = _call(rng.choice((*BAD_CALLS, *GOOD_CALLS)), rng, first)
        graph["nodes"].insert(rng.randrange(len(graph["nodes"])), call)
    else:
        for node in rng.sample(graph["nodes"], 2):
            _wild(node, rng)
    if way:
        members[model] = json.dumps(content).encode()
    path = folder / "g.pt2"
    packed = rng.random() < 0.05
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as out:
        for name, each in members.items():
            out.writestr(name, each)
        if packed:
            out.writestr("g/data/weights/weight_9", bytes(2**28))
    return command(path)
