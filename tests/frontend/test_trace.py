from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import transforms

import distillc
from distillc.errors import TraceError
from distillc.frontend.trace import export_program


class Branching(nn.Module):
    """Python that looks at the values: cannot be exported."""

    def forward(self, image: Tensor) -> Tensor:
        if image.sum() > 0:
            return image
        return -image


def test_scale_and_multiple_are_found(tiny_restormer: nn.Module) -> None:
    net = distillc.trace(tiny_restormer, torch.rand(1, 3, 32, 32))
    assert (net.scale, net.multiple, net.name) == (1, 8, "Restormer")
    twice = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2))
    net = distillc.trace(twice, torch.rand(1, 1, 10, 12), name="twice")
    assert (net.scale, net.multiple, net.in_channels, net.name) == (2, 1, 1, "twice")


def test_a_wrong_size_says_which_multiple(tiny_restormer: nn.Module) -> None:
    with pytest.raises(TraceError, match="multiples of 8"):
        distillc.trace(tiny_restormer, torch.rand(1, 3, 30, 32))


def test_a_wrong_number_of_channels(tiny_restormer: nn.Module) -> None:
    with pytest.raises(TraceError, match="channels"):
        distillc.trace(tiny_restormer, torch.rand(1, 4, 32, 32))


def test_a_network_that_returns_no_image() -> None:
    with pytest.raises(TraceError, match="must return an image"):
        distillc.trace(nn.Flatten(), torch.rand(1, 3, 8, 8))


def test_a_network_that_takes_more_than_an_image() -> None:
    class Level(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x * sigma

    with pytest.raises(TraceError, match=r"Level.forward must take only an image.*'sigma'"):
        distillc.trace(Level(), torch.zeros(1, 3, 8, 8))


def test_an_example_that_is_no_image() -> None:
    images: Any = (torch.zeros(1, 3, 8, 8), torch.ones(1))
    with pytest.raises(TraceError, match=r"must be an image .* not a tuple"):
        distillc.trace(nn.Conv2d(3, 3, 1), images)


def test_weights_of_another_kind_name_the_line_and_what_to_call() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1).half()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    with pytest.raises(TraceError, match=r"module.float\(\).cpu\(\)") as caught:
        distillc.trace(Halved(), torch.zeros(1, 3, 8, 8))
    assert "test_trace.py" in str(caught.value)


def test_a_network_without_a_signature() -> None:
    traced = torch.jit.trace(nn.Conv2d(3, 3, 3, padding=1).eval(), torch.rand(1, 3, 8, 8))
    assert distillc.trace(traced, torch.rand(1, 3, 8, 8)).scale == 1
    with pytest.raises(TraceError, match="does not run"):
        distillc.trace(traced, torch.rand(1, 4, 8, 8))


def test_a_wrong_size_of_a_network_that_returns_no_image() -> None:
    with pytest.raises(TraceError, match="does not run"):
        distillc.trace(nn.PixelUnshuffle(2), torch.rand(1, 3, 7, 8))


def test_a_wrong_size_of_a_network_that_returns_more_than_an_image() -> None:
    class Pair(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return nn.functional.pixel_unshuffle(image, 2), image

    with pytest.raises(TraceError, match="multiples of 2"):
        distillc.trace(Pair(), torch.rand(1, 3, 7, 8))


def test_every_operator_knows_its_module(tiny_restormer: nn.Module) -> None:
    program = export_program(tiny_restormer, (1, 3, 16, 16))
    paths = {
        path
        for node in program.graph.nodes
        for path, _ in (node.meta.get("nn_module_stack") or {}).values()
    }
    assert "encoder_level1.0.attn" in paths


@pytest.mark.parametrize("inplace", [False, True])
def test_normalization_by_torchvision(inplace: bool) -> None:
    class Normalized(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            features = image.clone()
            result = transforms.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], inplace)(features)
            return features + result

    x, module = torch.rand(1, 3, 8, 8), Normalized()
    assert torch.equal(export_program(module, x.shape).module()(x), module(x))
    with pytest.raises(ValueError, match="std evaluated to zero"):  # as before, elsewhere
        transforms.Normalize([0.5], [0.0])(x)


def test_constants_of_a_forward_are_no_reason_to_export_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Weighed(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image * torch.tensor([0.5, 0.25, 0.25])[:, None, None]

    exports, export = [], torch.export.export

    def counted(*args: Any) -> torch.export.ExportedProgram:
        exports.append(args)
        return export(*args)

    monkeypatch.setattr(torch.export, "export", counted)
    export_program(Weighed(), (1, 3, 8, 8))
    assert len(exports) == 1


def test_what_cannot_be_exported_names_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TraceError, match="cannot be exported") as caught:
        export_program(Branching(), (1, 3, 8, 8))
    assert capfd.readouterr() == ("", "")  # torch would print the graph so far
    assert "test_trace.py" in str(caught.value)
    assert "tensor values" in str(caught.value)
