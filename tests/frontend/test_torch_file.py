"""What may be beside the weights in a pickle, and what may not."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distillc.errors import CheckpointError
from distillc.frontend.formats import read_checkpoint

STATE = {"conv.weight": torch.rand(3, 3)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "beside",
    [
        np.float64(31.2),
        np.float32(31.2),
        np.int64(3),
        np.bool_(True),
        {"psnr": [np.float16(1), np.uint8(2)]},
        np.arange(4),
        np.array(["a", "b"]),
        argparse.Namespace(lr=1e-4, sizes=[1, 2]),
        SimpleNamespace(a=1),
        Path("runs/7"),
    ],
    ids=repr,
)
def test_plain_values_beside_the_weights(beside: Any, zipped: bool, tmp_path: Path) -> None:
    content = {"params": STATE, "beside": beside}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(tmp_path / "x.pth")
    assert isinstance(read, dict)
    assert torch.equal(read["conv.weight"], STATE["conv.weight"])


def test_objects_of_numpy_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"params": STATE, "n": np.array([{}], dtype=object)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="ObjectDType"):
        read_checkpoint(tmp_path / "x.pth")


def test_the_list_is_not_left_to_other_code(tmp_path: Path) -> None:
    torch.save({"params": STATE, "psnr": np.float64(3)}, tmp_path / "x.pth")
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(tmp_path / "x.pth", sandbox=False)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("gone", ["package", "class"])
def test_a_trusted_pickle_whose_code_is_not_here(
    gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost = type("Ghost", (), {"__module__": "ghost_package.nets"})
    package, nets = ModuleType("ghost_package"), ModuleType("ghost_package.nets")
    nets.Ghost = ghost  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ghost_package", package)
    monkeypatch.setitem(sys.modules, "ghost_package.nets", nets)
    torch.save({"params": STATE, "options": ghost()}, tmp_path / "x.pth")
    if gone == "package":
        monkeypatch.delitem(sys.modules, "ghost_package")
        monkeypatch.delitem(sys.modules, "ghost_package.nets")
    else:
        del nets.Ghost  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="code that is not here") as caught:
        read_checkpoint(tmp_path / "x.pth", trust_pickle=True)
    said = str(caught.value)
    assert "ghost_package" in said
    assert ("pip install ghost_package" in said) == (gone == "package")
    assert "truncated" not in said
