"""distillc.compile: networks and plain modules become bundles that compute what torch does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import DeformConv2d

import distillc
from distillc.errors import LoweringError, StorageError, TraceError, UsageError
from distillc.frontend.padding import Padded
from distillc.network import KEEP, Network
from distillc.runtime.verify import verify_bundle
from distillc.workdir import read_tensors
from tests.passes.toy import toy_network
from tests.runtime.conftest import toy_hybrid

X = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(4))


def test_plain_module_and_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 3, 3, padding=1)
    bundle = distillc.compile(module, target="host", size=(16, 24), directory=tmp_path)
    with torch.no_grad():
        np.testing.assert_allclose(bundle.run(X.numpy()), module(X).numpy(), atol=1e-5)
    assert bundle.manifest["size"] == [16, 24]
    assert bundle.manifest["verified"] is False


class Shuffled(nn.Module):
    """Mixes squares of `edge` pixels into squares of `edge * scale`, of other channels."""

    def __init__(self, channels: int, outputs: int, edge: int, scale: int) -> None:
        super().__init__()
        self.edge, self.scale = edge, scale
        self.mix = nn.Conv2d(channels * edge**2, outputs * (edge * scale) ** 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.mix(nn.functional.pixel_unshuffle(x, self.edge))
        return nn.functional.pixel_shuffle(mixed, self.edge * self.scale)


@given(
    channels=st.sampled_from([1, 3]),
    outputs=st.integers(1, 4),
    edge=st.sampled_from([1, 2, 4]),
    scale=st.integers(1, 4),
    size=st.tuples(st.integers(5, 24), st.integers(5, 24)),
)
@example(channels=3, outputs=3, edge=1, scale=2, size=(16, 24))
@example(channels=1, outputs=1, edge=4, scale=3, size=(15, 11))
@settings(max_examples=2, deadline=None)
def test_every_bundle_runs(
    channels: int, outputs: int, edge: int, scale: int, size: tuple[int, int]
) -> None:
    """Channels and scale come from the program, whatever the module."""
    torch.manual_seed(0)
    module = Shuffled(channels, outputs, edge, scale)
    bundle = distillc.compile(module, "host", size)
    fits = tuple(-(-extent // edge) * edge for extent in size)
    x = torch.rand(1, channels, *size)
    padded = Padded(module, (fits[0], fits[1]), scale)
    with torch.no_grad():
        wanted = padded(x).numpy()
    facts = bundle.facts
    assert facts.input_shape == x.shape
    assert facts.output_shape == wanted.shape == (1, outputs, *(scale * each for each in size))
    assert facts.scale == scale
    np.testing.assert_allclose(bundle.run(x.numpy()), wanted, atol=1e-5)
    assert verify_bundle(bundle).max_error <= 1e-4


class Returns(nn.Module):
    """Returns what a function makes of the image."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("module", "returned"),
    [
        (nn.Conv2d(3, 3, 3, stride=2, padding=1), "(1, 3, 8, 12)"),
        (nn.Conv2d(3, 3, 3), "(1, 3, 14, 22)"),
        (nn.Upsample(scale_factor=(2, 3)), "(1, 3, 32, 72)"),
        (nn.Upsample(size=(16, 12)), "(1, 3, 16, 12)"),
        (Returns(lambda x: ("text", 1.0)), "a tuple"),
        (Returns(lambda x: x.double()), "float64 (1, 3, 16, 24)"),
        (Returns(lambda x: (255 * x).to(torch.uint8)), "uint8 (1, 3, 16, 24)"),
        (Returns(lambda x: x.flatten(1)), "(1, 1152)"),
        (Returns(lambda x: x[:, :0]), "(1, 0, 16, 24)"),
        (Returns(lambda x: x.repeat(2, 1, 1, 1)), "(2, 3, 16, 24)"),
        (Returns(lambda x: None), "a NoneType"),
    ],
)
def test_what_returns_no_image_is_refused(tmp_path: Path, module: nn.Module, returned: str) -> None:
    with pytest.raises(TraceError, match="must return an image") as caught:
        distillc.compile(module, "host", (16, 24), directory=tmp_path)
    assert f"not {returned} for (1, 3, 16, 24)" in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_images_is_chosen_when_tracing(tmp_path: Path) -> None:
    module = Returns(lambda x: (x, 2 * x))
    with pytest.raises(TraceError, match="several images") as caught:
        distillc.compile(module, "host", (16, 24), directory=tmp_path)
    assert caught.value.hint is not None
    assert "output='0' of distillc.trace" in caught.value.hint
    x = torch.rand(1, 3, 16, 24)
    network = distillc.trace(module, x, output="1")
    assert torch.equal(network.module(x), 2 * x)


def test_a_network_whose_scale_is_wrong(tmp_path: Path) -> None:
    """The program says what a bundle returns; where it is cut, a wrong scale would hide."""
    wrong = Network(Shuffled(3, 3, 1, 2), (16, 16))
    bundle = distillc.compile(wrong, "host", (16, 24), directory=tmp_path / "whole")
    assert (bundle.facts.scale, bundle.run(X.numpy()).shape) == (2, (1, 3, 32, 48))
    with pytest.raises(TraceError, match="its scale says"):
        distillc.compile(wrong.with_(multiple=8), "host", (15, 24), directory=tmp_path / "cut")


def test_decisions_are_applied_and_every_part_agrees(tmp_path: Path) -> None:
    net = toy_hybrid()
    bundle = distillc.compile(
        net, "host", (16, 24), directory=tmp_path, manifest={"task": "derain"}
    )
    assert bundle.manifest["task"] == "derain"
    hybrid = net.hybrid()
    with torch.no_grad():
        wanted = hybrid(X)
        assert not torch.allclose(wanted, net.module(X), atol=1e-3)  # a scan is inside
    np.testing.assert_allclose(bundle.run(X.numpy()), wanted.numpy(), atol=1e-4)
    program = torch.export.load(tmp_path / "hybrid.pt2").module()
    torch.testing.assert_close(program(X), wanted)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (exported,) = session.run(None, {"image": X.numpy()})
    np.testing.assert_allclose(exported, wanted.numpy(), atol=1e-4)
    hybrid.load_state_dict(read_tensors(tmp_path / "weights.safetensors"))
    reference = read_tensors(tmp_path / "reference.safetensors")
    torch.testing.assert_close(hybrid(reference["input"]).detach(), reference["output"])


def test_reading_between_the_pixels(tmp_path: Path) -> None:
    class Aligned(nn.Module):
        """Deformed, then warped by a flow, as video and burst restoration do."""

        def __init__(self) -> None:
            super().__init__()
            self.moves = nn.Conv2d(3, 18 + 2, 3, padding=1)
            self.deformed = DeformConv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            moves, flow = self.moves(x).split([18, 2], 1)
            grid = flow.permute(0, 2, 3, 1) / 4
            y = self.deformed(x, moves)
            return y + nn.functional.grid_sample(x, grid, "bilinear", "border", False)

    torch.manual_seed(0)
    module = Aligned().eval()
    bundle = distillc.compile(module, "host", (16, 24), directory=tmp_path)
    with torch.no_grad():
        wanted = module(X).numpy()
    np.testing.assert_allclose(bundle.run(X.numpy()), wanted, atol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"image": X.numpy()})[0], wanted, atol=1e-4)


def test_every_form_sorts_alike_and_knows_masks(tmp_path: Path) -> None:
    class Ranked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor([0.5]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, bright = x.clone(), x > 0.5
            y[bright] = self.gain.item() * x[bright]
            order = (4 * x).round().flatten(2).sort().indices  # most are equal
            places, _ = order.topk(384, largest=False)
            return y * order.view_as(x) / 384 + places.view_as(x) / 384

    bundle = distillc.compile(Ranked(), "host", (16, 24), directory=tmp_path)
    assert verify_bundle(bundle).max_error < 1e-6


def test_healed_weights_are_compiled(tmp_path: Path) -> None:
    net = toy_network().with_(decisions={"blocks.0": KEEP, "blocks.1": KEEP})
    state = {name: tensor * 0.5 for name, tensor in net.hybrid().state_dict().items()}
    healed = net.with_(healed=state)
    bundle = distillc.compile(healed, "host", (16, 16), directory=tmp_path)
    weights = read_tensors(bundle.path / "weights.safetensors")
    assert torch.equal(weights["tail.weight"], state["tail.weight"])


def test_network_without_decisions_is_the_teacher(tmp_path: Path) -> None:
    net = toy_network()
    bundle = distillc.compile(net, "host", (16, 24), directory=tmp_path)
    with torch.no_grad():
        np.testing.assert_allclose(bundle.run(X.numpy()), net.module(X).numpy(), atol=1e-5)


def test_training_mode_is_given_back() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5)).train()
    distillc.compile(module, "host", (8, 8))
    assert module.training


def test_half_precision_is_close_and_the_other_forms_stay(tmp_path: Path) -> None:
    net = toy_hybrid()
    bundle = distillc.compile(net, "host", (16, 24), precision="fp16", directory=tmp_path)
    assert bundle.manifest["precision"] == "fp16"
    with torch.no_grad():
        wanted = net.hybrid()(X).numpy()
    error = np.abs(bundle.run(X.numpy()) - wanted).max()
    assert 1e-6 < error < 0.02
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"image": X.numpy()})[0], wanted, atol=1e-4)


def test_half_weights_in_a_file_beside_the_library(tmp_path: Path) -> None:
    net, folder = toy_hybrid(), tmp_path / "made"
    folder.mkdir()
    bundle = distillc.compile(
        net,
        "host",
        (16, 24),
        precision="fp16-weights",
        weights_beside=True,
        directory=folder,
    )
    verified = verify_bundle(bundle)
    assert 1e-6 < verified.max_error < 0.01
    assert verified.precision == "fp16-weights"
    moved = bundle.annotate({"verified": True}).save(tmp_path / "moved")
    assert "model.weights" in moved.manifest["files"]
    np.testing.assert_array_equal(moved.run(X.numpy()), bundle.run(X.numpy()))


def test_a_size_that_is_no_multiple_is_padded(tmp_path: Path) -> None:
    net = toy_hybrid()
    bundle = distillc.compile(net, "host", (15, 11), directory=tmp_path)
    x = X[..., :15, :11]
    mirrored = torch.cat([x, x[:, :, 13:14]], 2)
    mirrored = torch.cat([mirrored, mirrored[..., 9:10]], 3)
    with torch.no_grad():
        wanted = net.hybrid()(mirrored)[..., :15, :11].numpy()
    np.testing.assert_allclose(bundle.run(x.numpy()), wanted, atol=1e-5)
    assert bundle.manifest["input_shape"] == [1, 3, 15, 11]
    verify_bundle(bundle)


def test_nothing_in_a_folder_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text("of the user")
    with pytest.raises(StorageError, match=r"not empty: it holds CMakeLists\.txt"):
        distillc.compile(toy_network(), "host", (16, 16), directory=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["CMakeLists.txt"]
    assert (tmp_path / "CMakeLists.txt").read_text() == "of the user"
    with pytest.raises(StorageError, match="cannot write"):
        distillc.compile(toy_network(), "host", directory=tmp_path / "CMakeLists.txt")


@pytest.mark.parametrize("entry", [{"verified": True}, {"format": 4}, {"scale": 2}, {"files": {}}])
def test_the_manifest_is_not_spoken_for(tmp_path: Path, entry: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"already: {next(iter(entry))}"):
        distillc.compile(toy_network(), "host", (16, 16), directory=tmp_path, manifest=entry)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown target"):
        distillc.compile(toy_network(), "toaster", (16, 16), directory=tmp_path)
    with pytest.raises(UsageError, match="known precisions: fp32, fp16"):
        distillc.compile(toy_network(), "host", (16, 16), precision="int4", directory=tmp_path)
    with pytest.raises(TraceError):
        distillc.compile(nn.Linear(3, 3), "host", (16, 16), directory=tmp_path)

    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(x).tanh(), s=x.shape[2:])

    with pytest.raises(LoweringError, match=r"tanh\.default"):
        distillc.compile(Spectrum(), "host", (16, 16), directory=tmp_path)

    class Infinite(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / (x - x)

    with pytest.raises(LoweringError, match="output is not finite"):
        distillc.compile(Infinite(), "host", (16, 16), directory=tmp_path)
    assert list(tmp_path.iterdir()) == []
