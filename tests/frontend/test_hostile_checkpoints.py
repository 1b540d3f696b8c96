"""Checkpoints that would grow, lie or run code: one clear error each, little time and memory."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distillc.errors import CheckpointError
from distillc.frontend import formats
from distillc.frontend.formats import checkpoint_limits, read_checkpoint
from distillc.frontend.load import load
from distillc.sandbox import ProcessLimits
from tests.fuzz.hostile.checkpoints import _Pickler, eternal, tensor

STATE = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


def archive(path: Path, content: Any, packed: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(content)
    with zipfile.ZipFile(path, "w", packed) as out:
        for name, each in {"data.pkl": buffer.getvalue(), "version": b"3\n", **more}.items():
            out.writestr(f"archive/{name}", each)
    return path


def refused(path: Path, said: str) -> CheckpointError:
    with pytest.raises(CheckpointError, match=said) as caught:
        read_checkpoint(path)
    assert caught.value.where == str(path)
    return caught.value


def test_packed_members(tmp_path: Path) -> None:
    content = {"a": tensor((4,), (1,), 0, 2**26)}
    path = archive(tmp_path / "x.pth", content, zipfile.ZIP_DEFLATED, **{"data/0": bytes(2**28)})
    assert path.stat().st_size < 2**19
    refused(path, "or are compressed")


@pytest.mark.parametrize(
    ("shape", "strides", "said"),
    [
        ((2**20, 2**20), (0, 0), "take more than the file holds"),
        ((2**40,), (1,), "out of bounds|cannot be read"),
        ((-(2**31),), (1,), "cannot be read"),
        ((2**40, 0), (0, 1), "has no elements"),
    ],
)
def test_tensors_that_are_larger_than_the_file(
    shape: tuple[int, ...], strides: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    content = {"a": tensor(shape, strides, 0, 16)}
    refused(archive(tmp_path / "x.pth", content, **{"data/0": bytes(64)}), said)


def test_a_storage_that_is_larger_than_the_file(tmp_path: Path) -> None:
    content = {"a": tensor((4,), (1,), 0, 2**40)}
    refused(archive(tmp_path / "x.pth", content, **{"data/0": bytes(64)}), r"cannot be read|memory")


def test_a_pickle_that_takes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint_limits(Path(__file__)).seconds < 10
    monkeypatch.setattr(formats, "checkpoint_limits", lambda _: ProcessLimits(1, 2**30))
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", eternal(60))
        out.writestr("archive/version", b"3\n")
    error = refused(path, "longer than 1 s")
    assert "--no-sandbox" in (error.hint or "")


@pytest.mark.parametrize("name", ["latent.99999999.weight", "body.100000.0.weight"])
def test_names_do_not_make_networks_of_any_size(name: str, tmp_path: Path) -> None:
    torch.save({**STATE, name: torch.ones(1)}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", "counts to")


def test_names_of_layers_far_apart_are_ordinary(tmp_path: Path) -> None:
    state = {**STATE, "features.34.weight": torch.ones(1)}
    torch.save(state, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").keys() == state.keys()  # type: ignore[union-attr]


def test_a_name_of_a_megabyte(tmp_path: Path) -> None:
    torch.save({"k" * 2**20: torch.ones(1)}, tmp_path / "x.pth")
    assert len(str(refused(tmp_path / "x.pth", "a name has 1048576 letters"))) < 2000


@pytest.mark.parametrize(
    "value",
    [torch.ones(2, 2).to_sparse(), torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)],
    ids=["sparse", "quantised"],
)
def test_tensors_of_other_kinds(value: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"a": value}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", "not a plain tensor|cannot be read")


def test_tied_weights_and_complex_ones_come_back(tmp_path: Path) -> None:
    weight = torch.rand(3, 3)
    state = {"a": weight, "b": weight, "c": weight.t(), "d": torch.ones(2, dtype=torch.complex64)}
    torch.save(state, tmp_path / "x.pth")
    read = read_checkpoint(tmp_path / "x.pth")
    assert isinstance(read, dict)
    assert list(read) == list(state)
    assert all(torch.equal(read[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
         "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("length", [None, 2**63, 2**40])
def test_safetensors_headers_that_lie(
    header: dict[str, Any], length: int | None, tmp_path: Path
) -> None:
    text = json.dumps(header).encode()
    content = struct.pack("<Q", length or len(text)) + text + bytes(16)
    (tmp_path / "x.safetensors").write_bytes(content)
    refused(tmp_path / "x.safetensors", "safetensors|no elements")


def test_what_gets_past_torch_stays_in_the_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `weights_only` is bypassed, the result is still plain tensors, made elsewhere."""
    torch.save(OrderedDict(STATE), tmp_path / "x.pth")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read in this process"))
    assert read_checkpoint(tmp_path / "x.pth").keys() == STATE.keys()  # type: ignore[union-attr]


def test_without_the_sandbox_the_bounds_stay(tmp_path: Path) -> None:
    torch.save({**STATE, "latent.99999999.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="counts to"):
        load(tmp_path / "x.pth", sandbox=False)
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="can run any code"):
        load(tmp_path / "x.pth", sandbox=False)
