"""Files are known by their content, whatever their names end in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distillc.errors import CheckpointError
from distillc.frontend.formats import read_checkpoint
from distillc.frontend.kinds import kind_of

STATE = {"conv.weight": torch.rand(3, 3), "conv.bias": torch.ones(3)}
NAMES = ("x.pth", "x.safetensors", "x.SAFETENSORS", "x.ckpt", "x")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("kind", ["torch", "older torch", "safetensors"])
def test_any_name(name: str, trust: bool, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind == "safetensors":
        save_file(STATE, str(path))
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "torch")
    assert kind_of(path) == kind.removeprefix("older ")
    read = read_checkpoint(path, trust_pickle=trust)
    assert isinstance(read, dict)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[key], value) for key, value in STATE.items())


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path) -> None:
    for more in range(64):  # a length of 128 begins with the byte of a pickle
        name = "w" + "x" * more
        save_file({name: torch.ones(2)}, str(tmp_path / "x.pth"))
        assert kind_of(tmp_path / "x.pth") == "safetensors"


@pytest.mark.parametrize(
    ("content", "what", "instead"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page", "download"),
        (b"\x89HDF\r\n\x1a\n", "HDF5", "onnx"),
        (b"\x1f\x8b\x08\x00", "packed archive", "unpack"),
        (b"GGUF\x03", "GGUF", "before the quantisation"),
        (b"hello", "neither a torch file", "torch.save"),
    ],
)
def test_what_people_take_for_a_checkpoint(
    content: bytes, what: str, instead: str, tmp_path: Path
) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=what) as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert instead in str(caught.value.hint)


def test_an_archive_with_a_checkpoint_inside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("weights/net.pth", b"x")
    with pytest.raises(CheckpointError, match=r"weights/net\.pth") as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert "unpack" in str(caught.value.hint)


def test_an_exported_program_of_another_name(tmp_path: Path) -> None:
    program = torch.export.export(nn.Conv2d(3, 3, 1), (torch.ones(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "x.pt2")
    (tmp_path / "x.pt2").rename(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="exported program") as caught:
        read_checkpoint(tmp_path / "x.pth")
    assert "x.pt2" in str(caught.value.hint)
