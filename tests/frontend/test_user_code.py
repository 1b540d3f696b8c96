"""Networks whose Python is the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distillc.frontend.load import load
from distillc.frontend.user_code import import_class, importing_from

NETWORK = """
import torch
from own_layers import head

class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.head, self.tail = head(width), torch.nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image):
        return self.tail(self.head(torch.cat([image, image.mean(1, keepdim=True)], 1)))
"""
LAYERS = "from torch import nn\ndef head(width): return nn.Conv2d(4, width, 3, padding=1)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "own_layers.py").write_text(LAYERS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_network", "own_layers"):
        sys.modules.pop(name, None)


def test_a_module_of_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert import_class("own_network:Net").__name__ == "Net"


def test_a_file_and_its_neighbour(folder: Path) -> None:
    assert import_class(f"{folder}/own_network.py:Net").__name__ == "Net"


def test_a_network_that_adds_a_channel_to_the_image(folder: Path) -> None:
    arch = f"{folder}/own_network.py:Net"
    torch.save(import_class(arch)(width=5).state_dict(), folder / "own.pth")
    net = load(folder / "own.pth", arch=arch, arch_args={"width": 5})
    assert (net.in_channels, net.scale) == (3, 1)


def test_a_pickled_module_of_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    torch.save(import_class("own_network:Net")(), folder / "whole.pth")
    sys.modules.pop("own_network")
    sys.path.remove(str(folder))
    assert load(folder / "whole.pth", trust_pickle=True).source["architecture"] == "Net"


def test_later_imports_find_the_folder_last(folder: Path) -> None:
    with importing_from(folder):
        assert sys.path[0] == str(folder)
    with importing_from(folder):
        pass
    assert sys.path[-1] == str(folder)
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize("arch", ["Net", ":Net", "own_network.py:", "own_network.py"])
def test_half_a_name(arch: str) -> None:
    with pytest.raises(ValueError, match="both sides of a colon"):
        import_class(arch)
