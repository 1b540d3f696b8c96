"""Weights that are not numbers are refused in every kind of file; masks of attention are not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import distillc
from distillc.errors import CheckpointError
from distillc.frontend.finite import check_finite
from distillc.frontend.restormer import Restormer

BAD = [math.nan, math.inf, -math.inf]


class Windows(nn.Module):
    """Attention over all pixels with a mask, as Swin has: a buffer added to the products."""

    def __init__(self, masked: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        mask = torch.zeros(16, 16)
        mask[:8, 8:] = mask[8:, :8] = masked
        self.register_buffer("attn_mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.project(x)).flatten(2).transpose(1, 2)
        scores = tokens @ tokens.transpose(1, 2) + self.attn_mask
        return x + (scores.softmax(-1) @ tokens).transpose(1, 2).view_as(x)


@pytest.mark.parametrize("masked", [-math.inf, -100.0, math.inf])
def test_masks_may_be_infinite(masked: float) -> None:
    check_finite(Windows(masked))


@pytest.mark.parametrize("masked", [-math.inf, -100.0])
def test_a_mask_compiles(masked: float) -> None:
    torch.manual_seed(0)
    module = Windows(masked).eval()
    bundle = distillc.compile(module, "host", (4, 4))
    x = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        np.testing.assert_allclose(bundle.run(x.numpy()), module(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["project.weight", "norm.running_var", "norm.bias"])
def test_the_tensor_is_named(name: str, value: float) -> None:
    module = Windows(-math.inf)
    module.state_dict()[name].view(-1)[1] = value
    with pytest.raises(CheckpointError, match=f"1 tensor: {name}"):
        check_finite(module)
    with pytest.raises(CheckpointError, match=f"1 tensor: {name}"):
        distillc.trace(module, torch.zeros(1, 3, 4, 4))
    with pytest.raises(CheckpointError, match=f"1 tensor: {name}"):
        distillc.compile(module, "host", (4, 4))


def test_a_mask_of_nan_is_damage() -> None:
    with pytest.raises(CheckpointError, match="1 tensor: attn_mask"):
        check_finite(Windows(math.nan))


def test_complex_and_whole_numbers_are_looked_at() -> None:
    module = nn.Module()
    module.register_parameter("phase", nn.Parameter(torch.tensor([1 + 1j, complex(math.nan, 0)])))
    module.register_buffer("index", torch.arange(4))
    with pytest.raises(CheckpointError, match="1 tensor: phase"):
        check_finite(module)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt2"])
def test_files(tmp_path: Path, tiny_restormer: Restormer, suffix: str) -> None:
    from safetensors.torch import save_file

    names = [name for name, _ in tiny_restormer.named_parameters()]
    for name in names[:6]:
        tiny_restormer.state_dict()[name].view(-1)[-1] = math.nan
    path = tmp_path / f"damaged{suffix}"
    state = tiny_restormer.state_dict()
    if suffix == ".pt2":
        program = torch.export.export(tiny_restormer, (torch.zeros(1, 3, 16, 16),))
        torch.export.save(program, path)
    elif suffix == ".pth":
        torch.save({"params": state}, path)
    else:
        save_file(state, path)
    with pytest.raises(CheckpointError, match="6 tensors") as caught:
        distillc.load(path)
    assert names[0] in caught.value.what
    assert caught.value.what.endswith(", ...")
    assert str(path) == caught.value.where


def graph(folder: Path, weight: float, added: float) -> Path:
    """Save a convolution with one weight, and a sum with one constant, as given."""
    weights = np.full((3, 3, 1, 1), 0.1, np.float32)
    weights[0, 0] = weight
    mask = np.zeros((1, 1, 8, 8), np.float32)
    mask[0, 0, 0, 0] = added
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], "conv"),
        helper.make_node("Add", ["a", "mask"], ["b"], "add"),
        helper.make_node("Sigmoid", ["b"], ["y"], "sigmoid"),
    ]
    constants = [numpy_helper.from_array(weights, "kernel"), numpy_helper.from_array(mask, "mask")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [image], [result], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = folder / "graph.onnx"
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("value", BAD)
def test_onnx_weights(tmp_path: Path, value: float) -> None:
    with pytest.raises(CheckpointError, match="1 tensor: kernel"):
        distillc.load(graph(tmp_path, value, 0.0))


def test_onnx_masks(tmp_path: Path) -> None:
    net = distillc.load(graph(tmp_path, 0.5, -math.inf))
    with torch.no_grad():
        assert net.module(torch.zeros(1, 3, 8, 8))[0, 0, 0].tolist() == [0.0] + [0.5] * 7
    with pytest.raises(CheckpointError, match="1 tensor: mask"):
        distillc.load(graph(tmp_path, 0.5, math.nan))
