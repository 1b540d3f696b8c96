"""Images of any size: whatever it is, tiles cover them and leave no seam."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.build.library import build_library
from distillc.errors import DeviceError
from distillc.frontend.trace import export_program
from distillc.runtime.bands import run_in_bands
from distillc.targets.base import get_target
from tests.c_api import Library, _image
from tests.runtime.copies import Copy

TILE = (24, 32)
sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))


class Enlarge(nn.Module):
    """Every pixel as a square of three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(3, 2).repeat_interleave(3, 3)


def blur() -> nn.Module:
    """A pixel that sees two pixels far."""
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 5, padding=2).eval()


@pytest.fixture(scope="module", params=[Enlarge, blur])
def network(request: pytest.FixtureRequest) -> nn.Module:
    made: nn.Module = request.param()
    return made


@pytest.fixture(scope="module")
def library(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Library:
    path = tmp_path_factory.mktemp("tiles") / "model.so"
    build_library(export_program(network, (1, 3, *TILE)), get_target("host"), path)
    return Library(path, threads=1)


def whole(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """What the network makes of the whole image, mirrored where it is smaller than a tile."""
    height, width = image.shape[2:]
    missing = [(0, max(0, tile - own)) for tile, own in zip(TILE, (height, width), strict=True)]
    padded = np.pad(image, [(0, 0), (0, 0), *missing], mode="symmetric")
    with torch.no_grad():
        y = network(torch.from_numpy(padded)).numpy()
    scale = y.shape[2] // padded.shape[2]
    return y[:, :, : scale * height, : scale * width]


@given(size=sizes, overlap=st.integers(8, 12))
def test_no_seam_where_a_pixel_sees_a_quarter_of_the_overlap(
    network: nn.Module, library: Library, size: tuple[int, int], overlap: int
) -> None:
    image = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
    np.testing.assert_allclose(library.restore(image, overlap), whole(network, image), atol=1e-5)


@given(size=sizes)
def test_tiles_that_share_nothing_cover_the_image(size: tuple[int, int], library: Library) -> None:
    image = np.ones((1, 3, *size), np.float32)
    assert np.isfinite(library.restore(image, 0)).all()


@given(size=sizes, overlap=st.sampled_from([None, 0, 5, 12]))
def test_bands_give_the_same_bits(
    library: Library, size: tuple[int, int], overlap: int | None
) -> None:
    height, width = size
    image = np.random.default_rng(0).random((1, 3, height, width), dtype=np.float32)

    class Here(Copy):
        def run(self, x: Any, device: Any, threads: Any, overlap: int | None) -> Any:
            share = -1 if overlap is None else overlap
            return np.concatenate([library.restore(each[None], share) for each in x])

    scale = library.info.output_height // TILE[0]
    bundle = Here(tile=TILE, scale=scale)

    def rows(top: int, bottom: int) -> np.ndarray:
        return image[0, :, top:bottom]

    found = np.empty((3, height * scale, width * scale), np.float32)
    for top, band in run_in_bands(bundle, (width, height), rows, overlap=overlap):
        found[:, top : top + band.shape[1]] = band
    wanted = library.restore(image, -1 if overlap is None else overlap)
    np.testing.assert_array_equal(found, wanted[0])


def test_in_place(library: Library, network: nn.Module) -> None:
    if isinstance(network, Enlarge):
        pytest.skip("the result is larger")
    image = np.random.default_rng(0).random((1, 3, 70, 50), dtype=np.float32)
    wanted, given = library.restore(image), _image(image, "nchw")
    restore = library._functions.distillc_model_restore
    assert restore(library._model, ctypes.byref(given), ctypes.byref(given), -1) == 0
    np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("form", ["rgba", "rgba16"])
def test_opacity_grows_with_the_image(library: Library, network: nn.Module, form: str) -> None:
    kind = np.uint16 if form == "rgba16" else np.uint8
    pixels = np.full((40, 50, 4), 77, kind)
    pixels[..., 3] = np.iinfo(kind).max // 50 * np.arange(50)
    found = library.restore(pixels, form=form)[..., 3].astype(float)
    scale = found.shape[1] // 50
    np.testing.assert_array_equal(found[scale // 2 :: scale, scale // 2 :: scale], pixels[..., 3])
    places = (np.arange(50 * scale) + 0.5) / scale - 0.5
    wanted = np.iinfo(kind).max // 50 * places.clip(0, 49)
    assert np.abs(found - wanted).max() <= 0.51


def test_one_tile_is_a_plain_run(library: Library) -> None:
    image = np.random.default_rng(0).random((1, 3, *TILE), dtype=np.float32)
    np.testing.assert_array_equal(library.restore(image), library.run(image))


def test_the_overlap_matters_and_has_a_default(library: Library, network: nn.Module) -> None:
    image = np.random.default_rng(0).random((1, 3, 40, 70), dtype=np.float32)
    default, wide, none = (library.restore(image, overlap) for overlap in (-1, 6, 0))
    np.testing.assert_array_equal(default, wide)  # a quarter of 24
    if isinstance(network, nn.Conv2d):
        assert not np.array_equal(default, none)


def test_what_cannot_be(library: Library) -> None:
    with pytest.raises(DeviceError, match="24x32 cannot overlap by 13 pixels: 0 to 12"):
        library.restore(np.zeros((1, 3, 40, 40), np.float32), 13)
    with pytest.raises(DeviceError, match="0 wide and 40 high"):
        library.restore(np.zeros((1, 3, 40, 0), np.float32))
    with pytest.raises(DeviceError, match="with 4 channels"):
        library.restore(np.zeros((1, 4, 40, 40), np.float32))


def test_a_network_that_halves_sizes(tmp_path: Path) -> None:
    program = export_program(nn.AvgPool2d(2), (1, 3, 16, 16))
    build_library(program, get_target("host"), tmp_path / "model.so")
    library = Library(tmp_path / "model.so")
    assert library.run(np.ones((1, 3, 16, 16), np.float32)).shape == (1, 3, 8, 8)
    with pytest.raises(DeviceError, match="by no whole factor"):
        library.restore(np.ones((1, 3, 20, 20), np.float32))
