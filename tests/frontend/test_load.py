from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import distillc
from distillc.errors import CheckpointError, TraceError, UsageError
from distillc.frontend.load import load

State = dict[str, torch.Tensor]


class Own(nn.Module):
    """A user's network, for --arch."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(image).relu())


class Raising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        {}["weights_dir"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"params": state},
        lambda state: {"params_ema": state, "params": {}},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: value.half() for key, value in state.items()},
    ],
    ids=["bare", "params", "params_ema", "state_dict", "module prefix", "half"],
)
def test_every_wrapping_loads(
    wrap: Callable[[State], Any], tiny_restormer: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(tiny_restormer.state_dict()), path)
    net = load(path)
    assert net.source["architecture"] == "Restormer"
    assert (net.scale, net.multiple, net.in_channels, net.name) == (1, 8, 3, "wrapped")
    assert {value.dtype for value in net.module.state_dict().values()} == {torch.float32}
    for key, value in tiny_restormer.state_dict().items():
        torch.testing.assert_close(net.module.state_dict()[key], value, atol=1e-3, rtol=1e-3)


def test_safetensors(tiny_restormer: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tiny_restormer.state_dict(), str(tmp_path / "tiny.safetensors"))
    assert load(tmp_path / "tiny.safetensors").source["architecture"] == "Restormer"


def test_the_embedded_checkpoint() -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / "checkpoints"
    net = load(path / "restormer_tiny_denoise_sigma25.pth")
    assert net.source["parameters"] == 1_144_443


def test_a_network_that_spandrel_knows(tmp_path: Path) -> None:
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = SwinIR(
            img_size=64,
            embed_dim=12,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=8,
            upscale=2,
            upsampler="pixelshuffledirect",
        )
        torch.save({"params": module.state_dict()}, tmp_path / "swin.pth")
        net = load(tmp_path / "swin.pth")
    assert net.source["architecture"] == "SwinIR"
    assert net.scale == 2


def noise_map() -> nn.Module:
    from spandrel.architectures.DRUNet import DRUNet

    return DRUNet(nc=[4, 4, 4, 4], nb=3)


def several_results() -> nn.Module:
    from spandrel.architectures.FBCNN import FBCNN

    return FBCNN(nc=[4, 4, 4, 512], nb=2)  # its quality estimate is 512 wide


@pytest.mark.parametrize("build", [noise_map, several_results])
def test_a_network_that_spandrel_calls_in_its_own_way(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    from spandrel import ImageModelDescriptor, ModelLoader

    from distillc.passes import Trace

    torch.manual_seed(0)
    torch.save(build().state_dict(), tmp_path / "x.pth")
    net = load(tmp_path / "x.pth")
    found = ModelLoader(device="cpu").load_from_file(tmp_path / "x.pth")
    assert isinstance(found, ImageModelDescriptor)
    image = torch.rand(net.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(net.module(image).clamp(0, 1), found(image))
        hybrid = Trace()(net).hybrid()
        torch.testing.assert_close(hybrid(image).clamp(0, 1), found(image))


def test_real_checkpoints_of_others(shared: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        craft = load(shared / "checkpoints" / "craft_x4.pth")
        dctlsa = load(shared / "checkpoints" / "dctlsa_x2.pt")
    assert (craft.source["architecture"], craft.scale) == ("CRAFT", 4)
    assert (dctlsa.source["architecture"], dctlsa.scale) == ("DCTLSA", 2)


@pytest.mark.parametrize("name", ["x.pt2", "x.onnx"])
def test_a_graph_has_no_weights_to_choose(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match="no state dict to choose"):
        load(tmp_path / name, weights_key="ema")


def test_a_pickled_module_has_no_weights_to_choose(tmp_path: Path) -> None:
    torch.save(Own(), tmp_path / "x.pth")
    with pytest.raises(UsageError, match="a module: there is no state dict to choose"):
        load(tmp_path / "x.pth", weights_key="ema", trust_pickle=True)


def test_a_users_own_class(tmp_path: Path) -> None:
    torch.save(Own(6).state_dict(), tmp_path / "own.pth")
    net = load(tmp_path / "own.pth", arch=f"{__name__}:Own", arch_args={"width": 6})
    assert net.scale == 1
    assert net.multiple == 1


class Staged(Own):
    """Two images: the result is the second."""

    def forward(self, x: torch.Tensor) -> Any:
        return {"stages": [x, super().forward(x)]}


def test_an_output_of_a_users_own_class(tmp_path: Path) -> None:
    own, x = Own(6).eval(), torch.rand(1, 3, 8, 8)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    words: dict[str, Any] = {"arch": f"{__name__}:Staged", "arch_args": {"width": 6}}
    with pytest.raises(TraceError, match=r"--output stages\.0"):
        load(tmp_path / "own.pth", **words)
    net = load(tmp_path / "own.pth", **words, output="stages.1")
    assert torch.equal(net.module(x), own(x))
    assert net.source["output"] == "stages.1"


@pytest.mark.parametrize("name", ["tiny.pth", "x.pt2"])
def test_an_output_of_what_returns_one(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what it returns is the image"):
        load(tmp_path / name, output="0")


@pytest.mark.parametrize(
    ("arch", "arguments", "error", "said"),
    [
        ("nowhere.models:Net", {}, UsageError, "nowhere"),
        (f"{__name__}:Nothing", {}, UsageError, "Nothing"),
        (f"{__name__}:Own", {"depth": 3}, UsageError, "depth"),
        (f"{__name__}:Own", {"width": -1}, UsageError, "RuntimeError: .*negative"),
        (f"{__name__}:Raising", {}, UsageError, "KeyError: 'weights_dir'"),
        (f"{__name__}:Own", {"width": 5}, CheckpointError, "wrong shape"),
        ("torch.nn:Identity", {}, CheckpointError, "unexpected"),
    ],
)
def test_a_wrong_class(
    arch: str, arguments: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    torch.save(Own(6).state_dict(), tmp_path / "own.pth")
    with pytest.raises(error, match=said):
        load(tmp_path / "own.pth", arch=arch, arch_args=arguments)


def test_an_exported_program_keeps_its_blocks(tiny_restormer: nn.Module, tmp_path: Path) -> None:
    from distillc.passes import FindAttention, Trace

    path = tmp_path / "tiny.pt2"
    image = torch.rand(1, 3, 32, 40)
    torch.export.save(torch.export.export(tiny_restormer, (image,)), path)
    net = load(path)
    assert net.size == (32, 40)
    with torch.no_grad():
        torch.testing.assert_close(net.module(image), tiny_restormer(image))
    net = distillc.Pipeline([Trace(), FindAttention()]).run(net)
    assert len(net.blocks) == 8
    with pytest.raises(TraceError, match="32x40"):
        net.at((64, 64))


def test_a_hybrid_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Nothing but `distillc.load` has registered the selective scan there."""
    from distillc.surrogates.specs import build_surrogate

    image = torch.rand(1, 3, 8, 8)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), build_surrogate("mamba", 8), nn.Conv2d(8, 3, 1))
    torch.export.save(torch.export.export(module.eval(), (image,)), tmp_path / "hybrid.pt2")
    code = f"import distillc; print(distillc.load({str(tmp_path / 'hybrid.pt2')!r}).size)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(8, 8)"


def save_text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def save_empty(path: Path) -> None:
    path.touch()


def save_truncated(path: Path) -> None:
    torch.save({"params": Own(64).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:3000])


def save_no_tensors(path: Path) -> None:
    torch.save({"params": {"epoch": 1}}, path)


def save_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (lambda path: None, "does not exist"),
        (save_text, "not a checkpoint"),
        (save_empty, "empty"),
        (save_truncated, "truncated"),
        (save_no_tensors, "no state dict"),
        (save_folder, "folder"),
    ],
    ids=["missing", "text", "empty", "truncated", "no tensors", "folder"],
)
def test_what_is_no_checkpoint(save: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    save(path)
    with pytest.raises(CheckpointError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_damaged_safetensors(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(CheckpointError, match="safetensors"):
        load(tmp_path / "x.safetensors")


def test_a_damaged_program(tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CheckpointError, match="truncated"):
        load(tmp_path / "x.pt2")


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save(Own(), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="can run any code") as caught:
        load(tmp_path / "module.pth")
    assert "--trust-pickle" in str(caught.value)
    net = load(tmp_path / "module.pth", trust_pickle=True)
    assert isinstance(net.module, Own)


def test_an_evil_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return Path.touch, (marker,)

    torch.save({"params": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="can run any code"):
        load(tmp_path / "evil.pth")
    assert not marker.exists()


def test_nothing_fits_says_what_came_closest(tiny_restormer: nn.Module, tmp_path: Path) -> None:
    state = tiny_restormer.state_dict()
    state.pop("output.weight")
    torch.save(state, tmp_path / "close.pth")
    with pytest.raises(CheckpointError, match="closest is Restormer") as caught:
        load(tmp_path / "close.pth")
    assert "output.weight" in str(caught.value)
    assert "--arch" in str(caught.value)


def test_nothing_fits_at_all(tmp_path: Path) -> None:
    torch.save({"weird.name": torch.zeros(1)}, tmp_path / "weird.pth")
    with pytest.raises(CheckpointError, match="none comes close"):
        load(tmp_path / "weird.pth")


def test_a_wrong_size_names_the_multiple(tiny_checkpoint: Path) -> None:
    with pytest.raises(TraceError, match="multiples of 8") as caught:
        load(tiny_checkpoint).at((30, 64))
    assert "32x64" in str(caught.value)
