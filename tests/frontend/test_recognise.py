"""Whole files as training leaves them, recognised by the names in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distillc.errors import CheckpointError
from distillc.frontend.load import load

State = dict[str, torch.Tensor]


def as_mmagic(state: State, other: State) -> Any:
    names = {f"generator.{name}": value for name, value in other.items()}
    names |= {f"generator_ema.{name}": value for name, value in state.items()}
    return {"meta": {"iter": 7}, "state_dict": {**names, "step_counter": torch.tensor(7)}}


def as_lightning(state: State, other: State) -> Any:
    names = {f"net.{name}": value for name, value in state.items()}
    names |= {"loss.vgg.weight": torch.rand(3, 3), "val_psnr.total": torch.tensor(0.0)}
    return {"epoch": 3, "state_dict": names, "optimizer_states": [], "lr_schedulers": []}


def as_compiled_in_parallel(state: State, other: State) -> Any:
    return {"params": {f"module._orig_mod.{name}": value for name, value in state.items()}}


def as_profiled(state: State, other: State) -> Any:
    counts = {f"{name}.total_ops": torch.zeros(1, dtype=torch.float64) for name in ("a", "a.b")}
    return {"params": {**counts, **state}}


def as_two_stages(state: State, other: State) -> Any:
    return {"first": other, "second": {"weights": state}}


@pytest.mark.parametrize(
    ("wrap", "key", "said"),
    [
        (as_mmagic, None, "under the prefix generator_ema.; left out: generator."),
        (as_lightning, None, "under the prefix net.; left out: loss.vgg.weight, val_psnr.total"),
        (as_compiled_in_parallel, None, "renamed, without module. of parallel training"),
        (as_profiled, None, "left out, a profiler's counts and not weights: a.total_ops"),
        (as_two_stages, "second.weights", ""),
    ],
)
def test_what_training_leaves_around_the_weights(
    wrap: Callable[[State, State], Any],
    key: str | None,
    said: str,
    tiny_restormer: nn.Module,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = tiny_restormer.state_dict()
    other = {name: value * 2 for name, value in state.items()}
    torch.save(wrap(state, other), tmp_path / "x.pth")
    net = load(tmp_path / "x.pth", weights_key=key)
    loaded = net.module.state_dict()
    assert net.source["architecture"] == "Restormer"
    assert net.source.get("weights_key") == key
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert said in caplog.text


def test_a_network_of_spandrel_under_a_prefix(tmp_path: Path) -> None:
    from spandrel.architectures.DRUNet import DRUNet

    state = DRUNet(nc=[4, 4, 4, 4], nb=3).state_dict()
    content = {f"model.net.{name}": value for name, value in state.items()}
    torch.save({"state_dict": {**content, "psnr.total": torch.zeros(3)}}, tmp_path / "x.ckpt")
    assert load(tmp_path / "x.ckpt").source["architecture"] == "DRUNet"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("trust", [False, True])
def test_the_weights_of_a_torchscript_archive(
    trust: bool, tiny_restormer: nn.Module, tmp_path: Path
) -> None:
    image = torch.rand(1, 3, 32, 32)
    torch.jit.trace(tiny_restormer, image).save(str(tmp_path / "x.pt"))
    net = load(tmp_path / "x.pt", trust_pickle=trust)
    with torch.no_grad():
        torch.testing.assert_close(net.module(image), tiny_restormer(image))


MASK, INDEX = ".attn_mask", ".relative_position_index"


@pytest.mark.parametrize("lacking", [(MASK,), (INDEX,), (MASK, INDEX)], ids=str)
def test_a_window_network_whose_file_lacks_what_it_computes(
    lacking: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    options: dict[str, Any] = {"depths": [2, 2], "num_heads": [2, 2], "window_size": 8}
    module = SwinIR(img_size=64, embed_dim=12, upsampler="pixelshuffledirect", **options).eval()
    state = {name: value for name, value in module.state_dict().items() if name.endswith(lacking)}
    assert len(state) == (2 if MASK in lacking else 0) + (4 if INDEX in lacking else 0)
    kept = {name: value for name, value in module.state_dict().items() if name not in state}
    torch.save({"params": {**kept, "extra.attn_mask": torch.ones(2)}}, tmp_path / "x.pth")
    net = load(tmp_path / "x.pth")
    loaded = net.module.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in module.state_dict().items())
    assert "left out, not weights of SwinIR: extra.attn_mask" in caplog.text
    assert all(name.rpartition(".")[2] in caplog.text for name in state)


def test_a_weight_that_spandrel_misses_is_named(tmp_path: Path) -> None:
    from spandrel.architectures.DRUNet import DRUNet

    state = DRUNet(nc=[4, 4, 4, 4], nb=3).state_dict()
    name = next(name for name in state if name.startswith("m_up1.1"))
    del state[name]
    torch.save(state, tmp_path / "x.pth")
    before = nn.Module.load_state_dict
    with pytest.raises(CheckpointError, match=f"do not fit DRUNet; missing: {name}"):
        load(tmp_path / "x.pth")
    assert nn.Module.load_state_dict is before
