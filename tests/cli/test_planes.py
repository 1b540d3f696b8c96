"""Raw planes, two views and other channels through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distillc.frontend.user_code import import_class
from distillc.runtime.bundle import Bundle

Run = Callable[..., tuple[int, str, str]]

PLANES = """
from torch import nn


class Planes(nn.Module):
    def __init__(self, given, made, scale=1):
        super().__init__()
        layers = [nn.Conv2d(given, 8, 3, padding=1), nn.GELU()]
        layers += [nn.Conv2d(8, made * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.body(x)
"""


@pytest.mark.parametrize(
    ("given", "made", "scale", "options", "task", "said"),
    [
        (4, 3, 2, ("--task", "sr:scale=2"), "demosaic:sigma=5", "the task is demosaic:sigma=5"),
        (4, 4, 1, ("--task", "raw:shot=0.1"), "raw:read=0.02,shot=0.1", ""),
        (6, 3, 1, (), "dual-pixel:radius=8", "the task is dual-pixel:radius=8, for denoise"),
        (9, 3, 1, (), None, "it is verified on random numbers only"),
    ],
)
def test_networks_of_other_channels(
    given: int,
    made: int,
    scale: int,
    options: tuple[str, ...],
    task: str | None,
    said: str,
    tmp_path: Path,
    run: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From ONNX (one of them) and checkpoints; verified on what the network takes."""
    (tmp_path / "planes.py").write_text(PLANES)
    arch, arguments = f"{tmp_path}/planes.py:Planes", {"given": given, "made": made, "scale": scale}
    module = import_class(arch)(**arguments)
    source = tmp_path / "net.pth"
    words = ["--arch", arch, "--arch-args", json.dumps(arguments), "--no-distill"]
    torch.save(module.state_dict(), source)
    if given == 6:
        source, words = tmp_path / "net.onnx", []
        torch.onnx.export(module, (torch.rand(1, given, 16, 16),), source, dynamo=False)
    words += ["--size", "16x16", "--target", "host", "--budget", "smoke", *options]
    out = tmp_path / "net.distillc"
    code, _, error = run("convert", source, *words, "--out", out, "--work-dir", tmp_path / "w")
    assert code == 0, error
    assert said in caplog.text
    assert said or "the task is" not in caplog.text
    images = 0 if task is None else 1
    bundle = Bundle.open(out)
    assert bundle.manifest.get("task") == task
    assert bundle.manifest["metrics"]["verification"]["images"] == images
    x = torch.rand(1, given, 16, 16)
    with torch.no_grad():
        np.testing.assert_allclose(bundle.run(x.numpy()), module(x).numpy(), atol=1e-4)
    code, printed, error = run("verify", out, "--json")
    assert code == 0, error
    assert json.loads(printed)["images"] == 2 * images


NETWORK = """
from torch import nn
from tests.benchmarks.kinds.interfaces import BayerPlanes, TwoViews
"""


@pytest.mark.parametrize(
    ("name", "channels", "task"),
    [("BayerPlanes", 4, "demosaic:sigma=5"), ("TwoViews", 6, "dual-pixel:radius=8")],
)
def test_distilled_from_photographs_and_from_pairs(
    name: str, channels: int, task: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "own.py").write_text(NETWORK)
    arch = f"{tmp_path}/own.py:{name}"
    torch.manual_seed(0)
    module: nn.Module = import_class(arch)().eval()
    torch.save(module.state_dict(), tmp_path / "net.pth")
    scale = 2 if channels == 4 else 1
    for index in range(4):
        rng = np.random.default_rng(index)
        for folder, shape in (
            ("input", (24, 24, channels)),
            ("target", (24 * scale, 24 * scale, 3)),
        ):
            (tmp_path / "pairs" / folder).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "pairs" / folder / f"{index}.npy", rng.random(shape, np.float32))
    words = ["--arch", arch, "--size", 16, "--target", "host", "--budget", "smoke"]
    words += ["--family", "conv", "--work-dir", tmp_path / "w"]
    data = [] if channels == 4 else ["--data", tmp_path / "pairs"]
    out = tmp_path / "net.distillc"
    code, _, error = run("convert", tmp_path / "net.pth", *words, *data, "--out", out)
    assert code == 0, error
    bundle = Bundle.open(out)
    # Pairs bring what the network takes: only the task's scale counts.
    assert bundle.manifest["task"] == ("denoise:sigma=25" if data else task)
    quality = bundle.manifest["metrics"]["quality"]
    assert quality["origin"] == (
        "images of pairs" if data else "photographs of scikit-image and matplotlib"
    )
    code, printed, error = run(
        "verify", out, "--json", "--data", tmp_path / "pairs", "--arch", arch, "--task", task
    )
    assert code == 0, error
    assert json.loads(printed)["data"]["teacher"]["psnr"] == pytest.approx(6, abs=4)
    code, printed, error = run("verify", out, "--json")
    assert (code, json.loads(printed)["images"]) == (0, 2), error
