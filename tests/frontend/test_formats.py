"""What is read from a file, whatever writes its state dict and however it is wrapped."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from distillc.errors import CheckpointError
from distillc.frontend.formats import read_checkpoint
from distillc.frontend.weights import WRAPPERS

STATE = {"body.0.weight": torch.arange(6.0).reshape(2, 3), "body.0.bias": torch.ones(2)}


def read_back(content: Any, path: Path, **options: Any) -> dict[str, Tensor]:
    torch.save(content, path, **options)
    state = read_checkpoint(path)
    assert isinstance(state, dict)
    return state


def same(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return state.keys() == wanted.keys() and all(
        torch.equal(value, wanted[key]) for key, value in state.items()
    )


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("container", [dict, OrderedDict])
def test_every_wrapper_and_prefix(
    wrapper: str | None, prefix: str, container: type, tmp_path: Path
) -> None:
    state = container((prefix + key, value) for key, value in STATE.items())
    content = state if wrapper is None else {wrapper: state, "epoch": 7, "best": torch.zeros(1)}
    assert same(read_back(content, tmp_path / "x.pth"), STATE)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(WRAPPERS), min_size=2, unique=True))
def test_of_several_wrappers_the_preferred_wins(
    tmp_path_factory: pytest.TempPathFactory, wrappers: list[str]
) -> None:
    content = {name: {"weight": torch.tensor([float(i)])} for i, name in enumerate(wrappers)}
    state = read_back(content, tmp_path_factory.mktemp("wrappers") / "x.pth")
    preferred = min(wrappers, key=WRAPPERS.index)
    assert state["weight"].item() == wrappers.index(preferred)


def test_the_older_format_of_torch(tmp_path: Path) -> None:
    state = read_back({"params": STATE}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(tmp_path / "old.pth")
    assert same(state, STATE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_becomes_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    state = read_back({"weight": STATE["body.0.weight"].to(dtype)}, tmp_path / "x.pth")
    assert state["weight"].dtype is torch.float32
    assert torch.equal(state["weight"], STATE["body.0.weight"])


def test_integers_stay_integers(tmp_path: Path) -> None:
    index = torch.arange(4)
    state = read_back({"relative_position_index": index, "w": torch.ones(1)}, tmp_path / "x.pth")
    assert state["relative_position_index"].dtype is torch.int64


def test_a_prefix_that_only_some_names_have_stays(tmp_path: Path) -> None:
    state = {"module.weight": torch.ones(1), "weight": torch.zeros(1)}
    assert same(read_back(state, tmp_path / "x.pth"), state)


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    assert same(read_back({**STATE, "version": 2, "name": "net"}, tmp_path / "x.pth"), STATE)


@pytest.mark.parametrize("half", [False, True])
def test_safetensors(half: bool, tmp_path: Path) -> None:
    state = {f"module.{key}": value.half() if half else value for key, value in STATE.items()}
    save_file(state, str(tmp_path / "x.safetensors"))
    read = read_checkpoint(tmp_path / "x.safetensors")
    assert isinstance(read, dict)
    assert same(read, STATE)


def test_the_file_is_left_alone(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()
    read_checkpoint(tmp_path / "x.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]
    assert (tmp_path / "x.pth").read_bytes() == before


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True), zipped=st.booleans())
def test_cut_anywhere_it_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, cut: float, zipped: bool
) -> None:
    """Nothing but `CheckpointError` leaves, and never half of the weights."""
    path = tmp_path_factory.mktemp("cut") / "x.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert caught.value.where == str(path)
    assert caught.value.hint
    assert caught.value.exit_code == 3


@settings(max_examples=150, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_not_to_be_trusted(
    tmp_path_factory: pytest.TempPathFactory, where: float, bits: int
) -> None:
    """A torn name looks like other code; only a whole pickle may be one of the user's."""
    path = tmp_path_factory.mktemp("damaged") / "x.pth"
    torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    begin, end = content.index(b"data.pkl") + 8, content.index(b"body.0.bias") + 60
    content[begin + int(where * (end - begin))] ^= bits
    path.write_bytes(content)
    said = ""
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        said = str(error)
    assert "--trust-pickle" not in said


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_whole_pickle_of_code_may_be_trusted(zipped: bool, protocol: int, tmp_path: Path) -> None:
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "x.pth", **options)
    with pytest.raises(CheckpointError, match="can run any code") as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert "--trust-pickle" in str(caught.value)
    assert isinstance(read_checkpoint(tmp_path / "x.pth", trust_pickle=True), nn.Conv2d)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]))
def test_any_bytes_are_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path_factory.mktemp("bytes") / f"x{suffix}"
        path.write_bytes(start + content)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


@pytest.mark.parametrize("content", [[torch.ones(1)], torch.ones(1), {}, {"params": {}}, 3, None])
def test_no_state_dict_says_what_there_is(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="no state dict"):
        read_checkpoint(tmp_path / "x.pth")


def test_a_trusted_module_is_returned_ready_for_inference(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout()).train(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="can run any code"):
        read_checkpoint(tmp_path / "net.pth")
    module = read_checkpoint(tmp_path / "net.pth", trust_pickle=True)
    assert isinstance(module, nn.Sequential)
    assert not module.training
