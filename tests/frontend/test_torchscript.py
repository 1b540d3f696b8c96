"""The weights of TorchScript archives, by the names of a state dict; nothing of them runs."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from distillc.errors import CheckpointError
from distillc.frontend.formats import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1).half()])
        self.tied = self.convs[0].weight
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("index", torch.arange(6).reshape(2, 3).t())

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(torch.conv2d(image, self.tied)) + self.index.sum()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Net]:
    net = Net().eval()
    path = tmp_path_factory.mktemp("script") / "net.pt"
    torch.jit.trace(net, torch.rand(1, 3, 8, 8)).save(str(path))
    return path, net


@pytest.mark.parametrize("trust", [False, True])
def test_the_weights_are_those_of_the_network(
    archive: tuple[Path, Net], trust: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, net = archive
    read = read_checkpoint(path, trust_pickle=trust)
    assert isinstance(read, dict)
    wanted = net.state_dict()
    assert wanted.keys() == read.keys()
    assert all(
        torch.equal(read[name], value.to(read[name].dtype)) for name, value in wanted.items()
    )
    assert "net.pt: this is a TorchScript archive" in caplog.text


def test_a_frozen_one_says_so(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.trace(Net().eval(), torch.rand(1, 3, 8, 8)))
    frozen.save(str(tmp_path / "x.pt"))
    with pytest.raises(CheckpointError, match="TorchScript archive without weights") as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert "onnx" in str(caught.value.hint)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def test_nothing_of_it_runs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as out:
        out.writestr("x/data.pkl", pickle.dumps(Evil(tmp_path / "ran"), 2))
        out.writestr("x/constants.pkl", b"")
    with pytest.raises(CheckpointError, match=r"TorchScript.*cannot be read: it holds a"):
        read_checkpoint(tmp_path / "x.pt", sandbox=False)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=40, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_damaged_anywhere_it_is_an_error_of_ours_or_whole(
    archive: tuple[Path, Net],
    tmp_path_factory: pytest.TempPathFactory,
    where: float,
    bits: int,
    cut: bool,
) -> None:
    path, net = archive
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    content[at] ^= bits
    damaged = tmp_path_factory.mktemp("damaged") / "x.pt"
    damaged.write_bytes(content[:at] if cut else content)
    try:
        read = read_checkpoint(damaged)
    except CheckpointError:
        return
    assert isinstance(read, dict)
    assert not cut
    wanted = net.state_dict()  # what was read has a checksum, so the damage is elsewhere
    assert wanted.keys() == read.keys()
    assert all(
        torch.equal(read[name], value.to(read[name].dtype)) for name, value in wanted.items()
    )
