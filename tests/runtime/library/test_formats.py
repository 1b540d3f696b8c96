"""What a library is, and the formats of its images."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from tests.c_api import Library
from tests.runtime.library.calls import BAD_ARGUMENT, by_torch, call, image


def test_it_says_what_it_is(library: Library) -> None:
    info = library.info
    assert (info.api_version, info.name, info.target) == (3, b'my "net"', b"host")
    assert (info.input_width, info.input_height, info.input_channels) == (24, 16, 3)
    assert (info.output_width, info.output_height, info.output_channels) == (24, 16, 3)
    assert info.threads == 2
    assert info.kernels >= 2
    assert info.planned_bytes >= 2 * 3 * 16 * 24 * 4
    assert info.weight_bytes >= 2 * 3 * 8 * 9 * 4


def test_floats_in_planes_and_in_pixels(library: Library, network: nn.Module) -> None:
    x = image()
    wanted = by_torch(network, x)
    np.testing.assert_allclose(library.run(x), wanted, atol=1e-5)
    pixels = np.ascontiguousarray(x[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(library.run(pixels, "nhwc"), library.run(x))
    np.testing.assert_array_equal(
        library.run(x, sink="nhwc").transpose(2, 0, 1)[None], library.run(x)
    )


def test_bytes_are_rounded_and_keep_their_alpha(library: Library) -> None:
    bytes_ = np.random.default_rng(1).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    x = np.ascontiguousarray(bytes_[..., :3].transpose(2, 0, 1)[None] / np.float32(255))
    found = library.run(bytes_, "rgba", "rgba")
    wanted = np.clip(library.run(x)[0].transpose(1, 2, 0), 0, 1) * 255
    assert np.abs(found[..., :3] - wanted).max() <= 0.5001
    np.testing.assert_array_equal(found[..., 3], bytes_[..., 3])
    assert (library.run(x, sink="rgba")[..., 3] == 255).all()


def test_part_of_a_larger_image(library: Library) -> None:
    x = image()
    large = np.zeros((1, 3, 40, 50), np.float32)
    part = large[:, :, 5:21, 7:31]
    part[:] = x
    np.testing.assert_array_equal(library.run(part), library.run(x))


@pytest.mark.parametrize("white", [1023, 4095, 65472, 0])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "rgba"])
def test_whole_numbers_of_sixteen_bits(library: Library, layout: str, white: int) -> None:
    largest = white or 65535
    deep = np.random.default_rng(2).integers(0, largest + 1, (16, 24, 4), dtype=np.uint16)
    x = np.ascontiguousarray(deep[..., :3].transpose(2, 0, 1)[None] / np.float32(largest))
    given = {"nchw": deep[..., :3].transpose(2, 0, 1)[None], "nhwc": deep[..., :3], "rgba": deep}
    found = library.run(np.ascontiguousarray(given[layout]), f"{layout}16", f"{layout}16", white)
    found = found[0].transpose(1, 2, 0) if layout == "nchw" else found
    wanted = np.clip(library.run(x)[0].transpose(1, 2, 0), 0, 1) * largest
    assert np.abs(found[..., :3] - wanted).max() <= 0.51
    if layout == "rgba":
        np.testing.assert_array_equal(found[..., 3], deep[..., 3])


def test_opacity_goes_between_depths(library: Library) -> None:
    bytes_ = np.random.default_rng(1).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    np.testing.assert_array_equal(
        library.run(bytes_, "rgba", "rgba16")[..., 3], bytes_[..., 3].astype(np.uint16) * 257
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"white": 4095}, "has 4095 for white: 16 bits have 1 to 65535, other formats 0"),
        ({"white": -1}, "has -1 for white"),
        ({"format": 3, "white": 65536}, "has 65536 for white"),
        ({"format": 3, "row_stride": 49, "plane_stride": 0}, "do not lie at multiples of 2"),
        ({"format": 3, "row_stride": 47, "plane_stride": 0}, "overlap"),
        ({"format": 6}, "unknown format 6"),
        ({"format": -1}, "unknown format -1"),
    ],
)
def test_sixteen_bits_that_do_not_fit(
    library: Library, changes: dict[str, object], message: str
) -> None:
    status, said = call(library, **changes)
    assert status == BAD_ARGUMENT
    assert message in said
