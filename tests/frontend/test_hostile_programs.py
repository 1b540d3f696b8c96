"""Programs with operators, numbers and sizes that no export writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillc.errors import CheckpointError
from distillc.frontend.inference_operators import is_allowed
from distillc.frontend.load import load
from tests.frontend.test_programs import MODEL, Members, edit, graph_of, members_of, write
from tests.fuzz.hostile.programs import BAD_CALLS, GOOD_CALLS, program


@pytest.fixture
def members(tmp_path: Path) -> Members:
    (tmp_path / "good.pt2").write_bytes(program())
    return members_of(tmp_path / "good.pt2")


def refused(members: Members, path: Path, said: str) -> None:
    write(members, path)
    with pytest.raises(CheckpointError, match=said) as caught:
        load(path)
    assert caught.value.where == str(path)


def node(model: Any, name: str) -> Any:
    return next(each for each in graph_of(model)["nodes"] if f".{name}." in each["target"])


def zeros(model: Any, shape: list[int]) -> None:
    """Make the network add zeros of a shape to what it computes with."""
    call = node(model, "softmax")
    call["target"] = "torch.ops.aten.full.default"
    call["inputs"] = [
        {"name": "size", "arg": {"as_ints": shape}, "kind": 1},
        {"name": "fill_value", "arg": {"as_float": 0.0}, "kind": 1},
    ]


@pytest.mark.parametrize("name", BAD_CALLS)
def test_operators_that_are_not_of_inference(name: str, members: Members, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        node(model, "softmax")["target"] = f"torch.ops.aten.{name}"

    assert not is_allowed(f"torch.ops.aten.{name}")
    edit(members, MODEL, change)
    refused(members, tmp_path / "x.pt2", "not an operator of inference")


def test_no_backward_operator_is_allowed() -> None:
    names = [name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names()]
    wild = [each for each in names if "backward" in each or each.startswith(("set_", "resize"))]
    assert len(wild) > 100
    for each in wild:
        packet, _, overload = each.partition(".")
        assert not is_allowed(f"torch.ops.aten.{packet}.{overload or 'default'}")


@pytest.mark.parametrize(
    "name", [*GOOD_CALLS, "add_.Tensor", "__and__.Tensor", "scaled_dot_product_attention.default"]
)
def test_operators_of_inference(name: str) -> None:
    assert is_allowed(f"torch.ops.aten.{name}")


@pytest.mark.parametrize("target", ["torch.os.system", "torch.ops.aten.add", "torch.ops.x.y.z"])
def test_what_is_no_operator(target: str) -> None:
    assert not is_allowed(target)


@pytest.mark.parametrize("extent", [2**36, -1, 2**62])
def test_a_size_that_the_file_admits(extent: int, members: Members, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        zeros(model, [extent])
        values = graph_of(model)["tensor_values"]
        values["softmax"]["sizes"] = [{"as_int": extent}]

    edit(members, MODEL, change)
    refused(members, tmp_path / "x.pt2", r"too large: softmax has the shape")


def test_a_size_that_the_file_hides(members: Members, tmp_path: Path) -> None:
    edit(members, MODEL, lambda model: zeros(model, [2**36]))
    refused(members, tmp_path / "x.pt2", "GiB of memory")


def test_a_small_lie(members: Members, tmp_path: Path) -> None:
    edit(members, MODEL, lambda model: zeros(model, [1, 4, 5]))
    refused(members, tmp_path / "x.pt2", r"softmax of the exported program is \(1, 4, 5\)")


def test_indices_out_of_bounds(members: Members, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        call = node(model, "softmax")
        call["target"] = "torch.ops.aten.select.int"
        call["inputs"] = [call["inputs"][0]] + [
            {"name": name, "arg": {"as_int": number}, "kind": 1}
            for name, number in (("dim", 1), ("index", 2**40))
        ]

    edit(members, MODEL, change)
    refused(members, tmp_path / "x.pt2", "does not run: softmax")


def test_long_names(members: Members, tmp_path: Path) -> None:
    text = members[MODEL].decode().replace('"softmax"', f'"{"s" * 5000}"')
    members[MODEL] = text.encode()
    refused(members, tmp_path / "x.pt2", "of 5000 letters")
