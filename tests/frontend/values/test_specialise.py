"""Choices of one image, fixed: warned of, recorded, and the same for every image from then on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import distillc
from distillc.errors import UsageError
from distillc.frontend.static_form import is_dynamic
from distillc.passes import Trace


class Choosing(nn.Module):
    """Takes a branch, a crop, and the bright pixels, as the image says."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.mix(image)
        if image.mean() > 0.3:
            x = x * 2
        crop = x[..., : int(8 * image.mean())]
        bright = torch.nonzero(image[0, 0] > 0.5)
        return x + crop.mean() + x[0, 0, bright[:, 0], bright[:, 1]].sum()


def test_choices_are_those_of_the_example(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    module, image = Choosing(), torch.rand(1, 3, 8, 8)
    net = Trace()(distillc.trace(module, image, specialise=True))
    assert net.program is not None
    assert net.fixed_size
    assert not any(map(is_dynamic, net.program.graph.nodes))
    assert caplog.text.count("as for the image given") == 3
    said = net.source["specialised"]
    assert "fixed to True, as for the image given: if image.mean() > 0.3:" in said[0]
    assert ["test_specialise.py" in each for each in said] == [True] * 3
    dark = torch.rand(1, 3, 8, 8) / 9
    with torch.no_grad():
        assert torch.equal(net.module(image), module(image))
        assert not torch.allclose(net.module(dark), module(dark))
        for each in (image, dark):
            torch.testing.assert_close(net.program.module()(each), net.module(each))


def test_nothing_to_specialise() -> None:
    with pytest.raises(UsageError, match="no Python of the network chooses"):
        distillc.trace(nn.Conv2d(3, 3, 1), torch.rand(1, 3, 8, 8), specialise=True)


def test_a_picture_and_a_class(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    torch.save(Choosing().state_dict(), tmp_path / "weights.pth")
    net = distillc.load(
        tmp_path / "weights.pth", arch=f"{__file__}:Choosing", specialise=tmp_path / "photo.png"
    )
    assert net.size == (8, 12)
    assert net.source["specialise"] == "photo.png"
    assert len(net.source["specialised"]) == 3
    with pytest.raises(UsageError, match="only networks of a class of yours"):
        distillc.load(tmp_path / "weights.pth", specialise=tmp_path / "photo.png")
