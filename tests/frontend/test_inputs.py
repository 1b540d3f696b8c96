"""Networks that take more than an image: the rest is fixed, and every module keeps its name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import distillc
from distillc.errors import CheckpointError, TraceError, UsageError
from distillc.frontend.structure import module_digest
from distillc.frontend.trace import export_program, trace_module


class Conv(nn.Module):
    """Parts of the networks below."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.table, self.dense = nn.Embedding(5, 8), nn.Linear(8, 8)
        self.joined = nn.Conv2d(4, 3, 3, padding=1)


class Scaled(Conv):
    def forward(self, x: Tensor, sigma: Any) -> Tensor:
        return self.last(self.first(x)) * sigma


class Repeated(Conv):
    """As FFDNet: a level for every image, made a map by the network."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.joined(torch.cat([x, sigma.repeat(1, 1, *x.shape[2:])], 1))


class Map(Conv):
    def forward(self, x: Tensor, noise_map: Tensor) -> Tensor:
        return self.joined(torch.cat([x, noise_map], 1))


class Step(Conv):
    """As diffusion networks, whose image comes second here."""

    def forward(self, t: Tensor, image: Tensor) -> Tensor:
        return self.last(self.first(image) + self.table(t)[:, :, None, None])


class Picked(Conv):
    def forward(self, x: Tensor, which: int = 0, *, kind: str) -> Tensor:
        if kind != "rain":
            raise ValueError(kind)
        return self.last(self.first(x) + self.table.weight[which, :, None, None])


class Prompted(Conv):
    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Tensor:
        if prompt is None:
            raise ValueError("no prompt")
        y = self.first(x)
        return self.last(y * self.dense(prompt)[:, :, None, None])


class Joined(Conv):
    """A prompt of one image beside a batch of others cannot be joined with them."""

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        return self.joined(torch.cat([x, prompt.expand(-1, -1, *x.shape[2:])], 1))


X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
ONES = torch.ones(1, 1, 1, 1)
CASES: list[tuple[type[Conv], dict[str, Any], dict[str, Any], str]] = [
    (Scaled, {"sigma": 0.5}, {"sigma": 0.5}, "sigma is fixed: 0.5"),
    (Repeated, {"sigma": 0.5}, {"sigma": 0.5 * ONES}, "0.5, float32 (1, 1, 1, 1)"),
    (
        Map,
        {"noise_map": 0.5},
        {"noise_map": 0.5 * ONES.expand(1, 1, 16, 16)},
        "of the image's size",
    ),
    (Step, {"t": 3}, {"t": torch.tensor([3])}, "t is fixed: 3, int64 (1,)"),
    (Picked, {"which": 2, "kind": "rain"}, {"which": 2, "kind": "rain"}, "kind is fixed: 'rain'"),
    (Prompted, {"prompt": torch.ones(8)}, {"prompt": torch.ones(1, 8)}, "float32 (1, 8)"),
    (Prompted, {"prompt": [1, 0, 0, 1, 0, 0, 0, 1]}, {}, "float32 (1, 8)"),
    (Prompted, {"prompt": np.ones((1, 8))}, {"prompt": torch.ones(1, 8)}, "float32 (1, 8)"),
    (Joined, {"prompt": ONES}, {"prompt": ONES}, "(1, 1, 1, 1)"),
]


@pytest.mark.parametrize(("kind", "inputs", "wanted", "said"), CASES)
def test_what_is_fixed(
    kind: type[Conv],
    inputs: dict[str, Any],
    wanted: dict[str, Any],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    net = distillc.trace(module, X, inputs=inputs)
    assert said in caplog.text
    assert (net.name, net.multiple, net.fixed_size) == (kind.__name__, 1, False)
    assert module.state_dict().keys() == net.module.state_dict().keys()
    with torch.no_grad():
        y = net.module(X)
        if wanted:
            image = {"image" if kind is Step else "x": X}
            torch.testing.assert_close(y, module(**image, **wanted))
        pair = torch.cat([X, X.flip(3)])
        alone = torch.cat([net.module(each[None]) for each in pair])
        torch.testing.assert_close(net.module(pair), alone)
        torch.testing.assert_close(copy.deepcopy(net.module)(pair), alone)
        program = export_program(net.module, (1, 3, 16, 16))
        torch.testing.assert_close(program.module()(X), y)
    assert type(module) is kind
    stacks = [node.meta.get("nn_module_stack", {}) for node in program.graph.nodes]
    assert any("first" in path or "joined" in path for each in stacks for path, _ in each.values())


def test_the_constants_are_part_of_what_results_depend_on() -> None:
    torch.manual_seed(0)
    module = Prompted().eval()
    digests = {
        module_digest(distillc.trace(module, X, inputs={"prompt": value * torch.ones(8)}).module)
        for value in (1, 1, 2)
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("kind", "inputs", "error", "said"),
    [
        (Scaled, {}, TraceError, "--input sigma=VALUE"),
        (Picked, {"which": 1}, TraceError, "--input kind=VALUE"),
        (Scaled, {"level": 1}, UsageError, "its inputs are x, sigma"),
        (Scaled, {"x": 1, "sigma": 1}, UsageError, "no input left for the image"),
        (Map, {"noise_map": torch.ones(1, 1, 8, 8)}, TraceError, r"noise_map float32 (1, 1, 8, 8)"),
        (Scaled, {"sigma": object()}, UsageError, "input 'sigma' is not a constant"),
        (Scaled, {"sigma": {"a": 1}}, UsageError, "input 'sigma' is not a constant"),
        (Scaled, {"sigma": [[1], [1, 2]]}, UsageError, "input 'sigma' is not a constant"),
        (Scaled, {"sigma": float("nan")}, UsageError, "input 'sigma' is not a constant"),
        (Scaled, {"sigma": torch.tensor([np.inf])}, UsageError, "numbers that are not finite"),
        (Scaled, {"sigma": Path("missing.npy")}, CheckpointError, "missing.npy"),
        (Scaled, {"sigma": [0.5, 1, 2]}, TraceError, "does not run on (1, 3, 16, 16) with sigma"),
        (Picked, {"kind": "snow"}, TraceError, "kind 'snow': snow"),
    ],
)
def test_what_cannot_be_fixed(
    kind: type[Conv], inputs: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        distillc.trace(kind(), X, inputs=inputs)
    assert said in str(caught.value)


class Windows(Scaled):
    def forward(self, x: Tensor, sigma: Any) -> Tensor:
        b, c, h, w = x.shape
        return super().forward(x.view(b, c, h // 7, 7, w // 7, 7).reshape(b, c, h, w), sigma)


def test_a_size_that_the_example_has_not() -> None:
    net = trace_module(Windows(), (64, 64), inputs={"sigma": 0.5})
    assert net.multiple == 7


class Two(Prompted):
    """Its first layer sees the image twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, x: Tensor, prompt: Tensor | None = None) -> Any:
        y = super().forward(torch.cat([x, x], 1), prompt)
        return y, x


def test_the_error_of_the_channels_that_run() -> None:
    with pytest.raises(TraceError, match="returns several images"):
        trace_module(Two(), (16, 16), inputs={"prompt": torch.ones(8)})


def test_from_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Prompted().eval()
    torch.save(module.state_dict(), tmp_path / "net.pth")
    prompt = torch.rand(1, 8)
    torch.save({"prompt": prompt}, tmp_path / "prompt.pt")
    arch = f"{__file__}:Prompted"
    net = distillc.load(tmp_path / "net.pth", arch=arch, inputs={"prompt": tmp_path / "prompt.pt"})
    with torch.no_grad():
        torch.testing.assert_close(net.module(X), module(X, prompt))
    assert net.source["inputs"]["prompt"]["shape"] == [1, 8]
    for name in ("net.pt2", "plain.pth"):
        torch.save({"weight": torch.zeros(1)}, tmp_path / name)
        with pytest.raises(UsageError, match="no further input to fix"):
            distillc.load(tmp_path / name, inputs={"sigma": 1})
