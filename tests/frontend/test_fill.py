"""Weights into a module: prefixes, and what a module computes for itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from distillc.errors import CheckpointError
from distillc.frontend.fill import fill

PATH = Path("x.pth")


class Window(nn.Module):
    """Attention's buffers as public networks have them: persistent, not, and None."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.rand(3, 2))
        self.register_buffer("relative_position_index", torch.arange(9).reshape(3, 3))
        self.register_buffer("attn_mask", torch.arange(float(size)) * -100)
        self.register_buffer("frequencies", torch.arange(3.0), persistent=False)
        self.register_buffer("other_mask", None)
        self.mean = torch.zeros(1, 3)
        self.register_parameter("bias", None)


class Net(nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.window = Window(size)
        self.norm = nn.BatchNorm2d(3)


def state(size: int = 4) -> dict[str, Tensor]:
    net = Net(size)
    return {name: value + 1 for name, value in net.state_dict().items()}


def filled(weights: dict[str, Tensor], net: nn.Module | None = None) -> nn.Module:
    net = net or Net()
    fill(net, weights, PATH, "Net", Net)
    return net


@given(st.lists(st.sampled_from(["net", "mine", "conv", "0", "module"]), max_size=3))
def test_any_prefix_is_taken_off(parts: list[str]) -> None:
    prefix = ".".join([*parts, ""]) if parts else ""
    weights = state()
    named = {f"{prefix}{name}": value for name, value in weights.items()}
    if prefix:
        named["loss.weight"] = torch.rand(3)
    net = filled(named)
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_the_prefix_and_what_is_left_out_are_told(caplog: pytest.LogCaptureFixture) -> None:
    filled({**{f"net.{name}": value for name, value in state().items()}, "loss.w": torch.ones(2)})
    assert "x.pth: the weights are those under the prefix net.; left out: loss.w" in caplog.text


def test_of_several_prefixes_the_average_is_taken_or_a_choice_asked() -> None:
    one, two = state(), {name: value * 2 for name, value in state().items()}
    both = {f"net.{name}": value for name, value in one.items()}
    net = filled({**both, **{f"net_g_ema.{name}": value for name, value in two.items()}})
    assert torch.equal(net.state_dict()["conv.weight"], two["conv.weight"])
    with pytest.raises(CheckpointError, match=r"under the prefixes net\., student\.") as caught:
        filled({**both, **{f"student.{name}": value for name, value in two.items()}})
    assert "--weights-key" in str(caught.value.hint)


def test_what_a_module_computes_may_be_missing(caplog: pytest.LogCaptureFixture) -> None:
    weights = state()
    for name in ("window.relative_position_index", "window.attn_mask", "norm.num_batches_tracked"):
        del weights[name]
    net = filled(weights)
    assert net.state_dict()["window.attn_mask"].tolist() == [0, -100, -200, -300]
    assert torch.equal(net.state_dict()["window.table"], weights["window.table"])
    assert "not in the file, Net computes it: norm.num_batches_tracked, window.attn" in caplog.text


class Drawn(Net):
    """A network with a codebook, and averages that begin with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.rand(4))
        self.register_buffer("sizes", torch.zeros(4))


@pytest.mark.parametrize("name", ["conv.weight", "norm.running_mean", "codebook", "sizes"])
def test_what_was_learnt_may_not_be_missing(name: str) -> None:
    weights = {key: value + 1 for key, value in Drawn().state_dict().items()}
    del weights[name]
    with pytest.raises(CheckpointError) as caught:
        fill(Drawn(), weights, PATH, "Drawn", Drawn)
    assert caught.value.what == f"the weights do not fit Drawn; missing: {name}"


def test_masks_of_another_size_are_computed(caplog: pytest.LogCaptureFixture) -> None:
    net = filled(state(size=6))
    assert net.state_dict()["window.attn_mask"].shape == (4,)
    assert "of another size in the file, Net computes it: window.attn_mask" in caplog.text
    wrong = {**state(), "window.table": torch.rand(4, 2)}
    with pytest.raises(CheckpointError, match=r"window.table is \(4, 2\), Net has \(3, 2\)"):
        filled(wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("window.other_mask", torch.rand(7)),
        ("window.mean", torch.zeros(1, 3)),
        ("window.frequencies", torch.rand(5)),
        ("window.shifts", torch.arange(3)),
        ("gone.attn_mask", torch.rand(2)),
    ],
)
def test_what_is_not_a_weight_is_left_out(
    name: str, value: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    filled({**state(), name: value})
    assert f"left out, not weights of Net: {name}" in caplog.text


@pytest.mark.parametrize("name", ["window.bias", "gone.weight", "conv.scale"])
def test_what_may_be_a_weight_is_unexpected(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"unexpected: {name}"):
        filled({**state(), name: torch.rand(3)})


def test_a_buffer_of_the_file_wins_over_the_computed_one(caplog: pytest.LogCaptureFixture) -> None:
    same = filled({**state(), "window.frequencies": torch.arange(3.0)})
    assert caplog.text == ""
    other = filled({**state(), "window.frequencies": torch.tensor([5.0, 6.0, 7.0])})
    for net, wanted in ((same, [0, 1, 2]), (other, [5, 6, 7])):
        window = net.get_submodule("window")
        assert isinstance(window, Window)
        assert dict(window.named_buffers())["frequencies"].tolist() == wanted
    assert "taken from the file, Net computes other values: window.frequencies" in caplog.text


def test_a_whole_state_dict_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    filled(state())
    assert caplog.text == ""
