"""Networks whose Python is the user's own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest
import torch

import distillc
from distillc.errors import CheckpointError, TraceError, UsageError
from distillc.frontend.load import load
from distillc.frontend.user_code import advice, import_class, importing_from

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
    for name in ("own_network", "own_layers", "wrappers"):
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


WRAPPERS = """
import torch
from own_network import Net
class Wrapped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = Net()
    def forward(self, image):
        return 1 - self.network(image)
class Twice(Wrapped):
    def __init__(self):
        super().__init__()
        self.network = Wrapped()
class Scaled(Wrapped):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
"""


@pytest.mark.parametrize("name", ["Wrapped", "Twice"])
def test_a_wrapper_takes_the_weights_of_what_it_wraps(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "wrappers.py").write_text(WRAPPERS)
    inner, x = import_class(f"{folder}/own_network.py:Net")(), torch.rand(1, 3, 8, 8)
    torch.save(inner.state_dict(), folder / "own.pth")
    net = load(folder / "own.pth", arch=f"{folder}/wrappers.py:{name}")
    assert "added the prefix network." in caplog.text
    wanted = 1 - inner(x) if name == "Wrapped" else inner(x)
    torch.testing.assert_close(net.module(x), wanted)
    torch.save(net.module.state_dict(), folder / "wrapped.pth")  # its own names fit too
    again = load(folder / "wrapped.pth", arch=f"{folder}/wrappers.py:{name}")
    assert torch.equal(again.module(x), net.module(x))


def test_a_wrapper_with_weights_of_its_own_needs_them(folder: Path) -> None:
    (folder / "wrappers.py").write_text(WRAPPERS)
    inner = import_class(f"{folder}/own_network.py:Net")()
    torch.save(inner.state_dict(), folder / "own.pth")
    with pytest.raises(CheckpointError, match=r"missing: network\.head\.bias"):
        load(folder / "own.pth", arch=f"{folder}/wrappers.py:Scaled")


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


@pytest.mark.parametrize(
    ("code", "line", "said"),
    [
        ("from mamba_ssm_of_others.ops import scan", 1, "`pip install mamba-ssm-of-others`"),
        ("import torch\nimport cv2_of_others.cuda", 2, "`pip install cv2-of-others`"),
        ("import torchvision.of_yesterday", 1, "the installed torchvision [0-9.]+"),
        ("from torchvision import of_yesterday", 1, "the installed torchvision [0-9.]+"),
    ],
)
def test_a_package_that_is_missing(code: str, line: int, said: str, folder: Path) -> None:
    (folder / "own_network.py").write_text(code)
    torch.save({"weight": torch.zeros(1)}, folder / "own.pth")
    with pytest.raises(UsageError) as caught:
        load(folder / "own.pth", arch=f"{folder}/own_network.py:Net")
    assert re.search(said, str(caught.value))
    assert f"own_network.py:{line}" in str(caught.value)
    assert "--arch-args" not in str(caught.value)


def test_a_part_of_an_installed_package_that_is_missing(folder: Path) -> None:
    inside = folder / "site-packages" / "scans.py"
    inside.parent.mkdir()
    inside.write_text("import scans_of_cuda")
    with pytest.raises(ModuleNotFoundError) as caught:
        import_class(f"{inside}:Net")
    assert "CUDA code that was not built" in str(advice(caught.value))
    assert "pip install" not in str(advice(caught.value))


def test_projects_with_other_names() -> None:
    missing = ModuleNotFoundError("No module named 'yaml_'", name="yaml")
    with mock.patch.object(metadata, "packages_distributions", dict):
        assert "`pip install pyyaml`" in str(advice(missing))


@pytest.mark.parametrize("arch", ["nowhere:Net", "nowhere.models:Net"])
def test_a_wrong_name_is_about_the_name(arch: str, folder: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, folder / "own.pth")
    with pytest.raises(UsageError, match=r"write package\.module:Class"):
        load(folder / "own.pth", arch=arch)


FORWARDS = {
    "__import__('timm_of_others')": "`pip install timm-of-others`",
    "x.cuda()": "device=x.device",
    "torch.ones(1, device='cuda') * x": "device=x.device",
}


@pytest.mark.parametrize(("code", "said"), FORWARDS.items())
def test_a_forward_that_wants_what_is_not_here(code: str, said: str, folder: Path) -> None:
    if "cuda" in code and torch.cuda.is_available():
        pytest.skip("CUDA is here")
    (folder / "own_network.py").write_text(f"""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
class Net(torch.nn.Module):
    def forward(self, x):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return {code}
""")
    net = import_class(f"{folder}/own_network.py:Net")()
    with pytest.raises(TraceError) as caught:
        distillc.trace(net, torch.rand(1, 3, 8, 8))
    assert said in str(caught.value)
    assert "own_network.py:7 in forward" in str(caught.value)


def test_attention_without_a_kernel() -> None:
    error = RuntimeError("No available kernel. Aborting execution.")
    assert "SDPBackend.MATH" in str(advice(error))


def test_other_errors_get_no_advice() -> None:
    assert advice(ValueError("3 is odd")) is None
