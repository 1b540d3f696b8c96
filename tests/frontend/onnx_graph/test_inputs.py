"""ONNX files that take more than an image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import distillc
from distillc.errors import CheckpointError, UsageError
from distillc.frontend.onnx_graph.runtime import OnnxRuntime


class Net(nn.Module):
    """A level as a map, a step as a whole number, a prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.table, self.dense = nn.Embedding(5, 8), nn.Linear(6, 8)

    def forward(self, image: Tensor, level: Tensor, step: Tensor, prompt: Tensor) -> Tensor:
        y = self.first(torch.cat([image, level], 1))
        more = self.table(step) + self.dense(prompt)
        return self.last(y + more[:, :, None, None])


PROMPT = torch.rand(1, 6, generator=torch.Generator().manual_seed(0))
ALL: dict[str, Any] = {"level": 0.5, "step": 3, "prompt": PROMPT}


@pytest.fixture(scope="module", params=[False, True], ids=["fixed", "free"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = Net().eval()
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    names = ["image", "level", "step", "prompt"]
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in ("image", "level", "restored")}
    given = (torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64), torch.tensor([1]), PROMPT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            given,
            path,
            input_names=names,
            output_names=["restored"],
            dynamo=False,
            dynamic_axes=axes if request.param else None,
        )
    return path


def reference(edge: int, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        level = torch.full((1, 1, edge, edge), 0.5)
        result: Tensor = Net().eval()(x, level, torch.tensor([3]), PROMPT)
        return result


def test_further_inputs_are_constants(model: Path) -> None:
    net = distillc.load(model, inputs=ALL)
    edge = 64 if net.fixed_size else 48
    x = torch.rand(1, 3, edge, edge)
    with torch.no_grad():
        torch.testing.assert_close(net.module(x), reference(edge, x), atol=1e-5, rtol=1e-5)
        runtime = OnnxRuntime(model, ALL)
        torch.testing.assert_close(runtime(x), reference(edge, x), atol=1e-5, rtol=1e-5)
    assert net.source["inputs"]["step"] == 3
    assert net.source["inputs"]["prompt"]["shape"] == [1, 6]
    assert [each.name for each in onnx.load(model).graph.input][1:] == ["level", "step", "prompt"]


@pytest.mark.parametrize(
    ("inputs", "error", "said"),
    [
        ({}, CheckpointError, "it takes: image, level, step, prompt"),
        ({"level": 0.5}, CheckpointError, "--input NAME=VALUE"),
        ({**ALL, "sigma": 1}, UsageError, "its inputs are image, level, step, prompt"),
        ({**ALL, "image": 1}, UsageError, "no input left for the image"),
        ({**ALL, "prompt": [0.1, 0.2]}, UsageError, r"'prompt' is float32 (1, 6), not (2,)"),
        ({**ALL, "prompt": "rain"}, UsageError, "not 'rain'"),
    ],
)
def test_what_is_refused(
    inputs: dict[str, Any], error: type[Exception], said: str, model: Path
) -> None:
    with pytest.raises(error) as caught:
        distillc.load(model, inputs=inputs)
    assert said in str(caught.value)


def test_as_a_bundle(model: Path, tmp_path: Path) -> None:
    bundle = distillc.convert_as_is(
        model,
        "host",
        (64, 64),
        out=tmp_path / "net.distillc",
        budget="smoke",
        work_dir=tmp_path / "work",
        inputs=ALL,
    )
    x = torch.rand(1, 3, 64, 64)
    np.testing.assert_allclose(bundle.run(x.numpy()), reference(64, x).numpy(), atol=1e-4)
    assert bundle.manifest["source"]["inputs"]["level"] == 0.5
