"""Hostile `.pt2` files: each runs its code when it is trusted, none does when it is not."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillc.errors import CheckpointError
from distillc.frontend.load import load
from distillc.frontend.programs import read_program

Members = dict[str, bytes]
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.add_module("its-last", nn.Conv2d(4, 3, 1))
        self.table: Tensor
        self.register_buffer("table", torch.arange(4.0))

    def forward(self, image: Tensor, *, gain: float = 2.0) -> Tensor:
        x = nn.functional.gelu(self.first(image), approximate="tanh")
        x = torch.einsum("bchw,c->bchw", x, self.table + torch.tensor([1.0, 2.0, 3.0, 4.0]))
        return self.get_submodule("its-last")(x) * gain


class Evil:
    """A pickle that creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), (torch.rand(1, 3, 16, 16),)), path)
    return path


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(members: Members, path: Path, root: str = "net/") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(root + name, content)


def edit(members: Members, name: str, change: Callable[[Any], object]) -> None:
    content = json.loads(members[name])
    change(content)
    members[name] = json.dumps(content).encode()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def python(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def example_inputs(members: Members, marker: Path) -> None:
    members["data/sample_inputs/model.pt"] = saved(Evil(marker))


def pickled_weight(members: Members, marker: Path) -> None:
    edit(members, WEIGHTS, lambda x: x["config"]["first.bias"].update(use_pickle=True))
    name = json.loads(members[WEIGHTS])["config"]["first.bias"]["path_name"]
    members[f"data/weights/{name}"] = saved(Evil(marker))


def object_constant(members: Members, marker: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    edit(members, CONSTANTS, lambda x: x["config"].update(x={**entry, "tensor_meta": None}))
    members["data/constants/opaque_obj_0"] = pickle.dumps(Evil(marker))


def former_weights(members: Members, marker: Path) -> None:
    members["data/weights/model.pt"] = saved(Evil(marker))


def former_layout(members: Members, marker: Path) -> None:
    parts = {"exported_program.json": members[MODEL], "state_dict.pt": saved(Evil(marker))}
    parts |= {"constants.pt": b"", "example_inputs.pt": b""}
    members.clear()
    major = torch._export.serde.schema.SCHEMA_VERSION[0]
    members["version"] = f"{major}.1".encode()
    members.update({f"serialized_{name}": content for name, content in parts.items()})


def symbolic_size(members: Members, marker: Path) -> None:
    def change(model: Any) -> None:
        values = model["graph_module"]["graph"]["tensor_values"]
        values["image"]["sizes"][0] = {"as_expr": {"expr_str": python(marker), "hint": None}}

    edit(members, MODEL, change)


def symbolic_weight(members: Members, marker: Path) -> None:
    def change(table: Any) -> None:
        sizes = table["config"]["first.bias"]["tensor_meta"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": python(marker), "hint": None}}

    edit(members, WEIGHTS, change)


def guard(members: Members, marker: Path) -> None:
    edit(members, MODEL, lambda x: x.update(guards_code=[python(marker)]))


def graph_of(model: Any) -> Any:
    return model["graph_module"]["graph"]


def call(target: str, *texts: str) -> Callable[[Any], None]:
    """Call something with texts, beside what the graph does."""
    node = {
        "target": target,
        "inputs": [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts],
        "outputs": [],
        "metadata": {},
        "is_hop_single_tensor_return": None,
    }
    return lambda model: graph_of(model)["nodes"].insert(0, node)


def shell(members: Members, marker: Path) -> None:
    edit(members, MODEL, call("torch.os.system", f"touch {marker}"))


def placeholder(members: Members, marker: Path) -> None:
    """The name of an input becomes source of the generated `forward`."""
    name = f"image, x={python(marker)}"
    text = members[MODEL].decode()
    members[MODEL] = text.replace('"image"', json.dumps(name)).encode()


def default_factory(members: Members, marker: Path) -> None:
    """A tree of inputs may name a module, which is imported."""
    context = {"default_factory_module": "evil_module", "default_factory_name": "f"}
    node = {"type": "collections.defaultdict", "context": json.dumps(context), "children_spec": []}

    def change(model: Any) -> None:
        model["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = json.dumps(
            [1, node]
        )

    edit(members, MODEL, change)


def compiled_library(members: Members, marker: Path) -> None:
    members["data/aotinductor/model/net.so"] = b"\x7fELF"


def extra_model(members: Members, marker: Path) -> None:
    members["models/other.json"] = members[MODEL]


def writes_a_file(members: Members, marker: Path) -> None:
    edit(members, MODEL, call("torch.ops.aten.from_file.default", str(marker)))


RUN = [example_inputs, pickled_weight, object_constant, former_weights, former_layout]
RUN += [symbolic_size, guard, placeholder]
ALL = [*RUN, shell, default_factory, compiled_library, extra_model, writes_a_file]
ALL += [symbolic_weight]


@pytest.fixture
def hostile(
    good: Path, tmp_path: Path
) -> Callable[[Callable[[Members, Path], None]], tuple[Path, Path]]:
    def make(poison: Callable[[Members, Path], None]) -> tuple[Path, Path]:
        members, marker, path = members_of(good), tmp_path / "ran", tmp_path / "evil.pt2"
        poison(members, marker)
        write(members, path, "" if poison is former_layout else "net/")
        return path, marker

    return make


@pytest.mark.parametrize("poison", ALL)
def test_what_could_run_code_is_refused(poison: Any, hostile: Any) -> None:
    path, marker = hostile(poison)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert not marker.exists()
    assert str(path) in str(caught.value)
    if poison is not former_layout:  # torch's own reader cannot open it
        assert "can run any code" in caught.value.what
        assert "--trust-pickle" in (caught.value.hint or "")


@pytest.mark.parametrize("poison", RUN)
def test_those_files_do_run_code(poison: Any, hostile: Any) -> None:
    """Or the test above would show nothing."""
    path, marker = hostile(poison)
    with suppress(Exception):
        load(path, trust_pickle=True)
    with suppress(Exception):
        read_program(path, trust=True).module()(torch.zeros(1, 3, 16, 16))
    assert marker.exists()


def test_members_that_two_readers_see_differently(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.pt2"
    write(members_of(good), path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(f"net/{MODEL}", b"{}")
    with pytest.raises(CheckpointError):
        read_program(path)


def test_a_good_program_passes(good: Path, tmp_path: Path) -> None:
    write(members_of(good), tmp_path / "again.pt2")
    program = read_program(tmp_path / "again.pt2")
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        wanted = torch.export.load(good).module()(image)
        torch.testing.assert_close(program.module()(image), wanted)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_what_is_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read|truncated") as caught:
        read_program(tmp_path / "x.pt2")
    assert "--trust-pickle" not in str(caught.value)
