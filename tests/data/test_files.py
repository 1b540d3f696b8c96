"""Image files: what a camera notes of how it was held."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from distillc.data.files import image_size, read_picture
from distillc.errors import DataError


def photograph(path: Path, turn: int) -> None:
    """Write a JPEG of 24x16 pixels, bright at its top left, with an Exif of some entries."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255
    notes = Image.Exif()
    notes[ExifTags.Base.Make] = "A camera"
    notes[ExifTags.Base.Orientation] = turn
    Image.fromarray(pixels).save(path, exif=notes.tobytes(), quality=95)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("turn", "corner"),
    [
        (1, (0, 0)),
        (2, (0, -1)),
        (3, (-1, -1)),
        (4, (-1, 0)),
        (5, (0, 0)),
        (6, (0, -1)),
        (7, (-1, -1)),
        (8, (-1, 0)),
        (9, (0, 0)),
    ],
)
def test_images_are_upright(
    tmp_path: Path, turn: int, corner: tuple[int, int], suffix: str
) -> None:
    path = tmp_path / f"photograph.{suffix}"
    photograph(path, turn)
    pixels = read_picture(path).pixels
    assert pixels.shape == ((24, 16, 3) if 5 <= turn <= 8 else (16, 24, 3))
    assert image_size(path) == (pixels.shape[1], pixels.shape[0])
    assert pixels[corner].min() > 240
    assert (pixels.mean(axis=2) > 128).sum() == 64


def test_sixteen_bits_are_turned_too(tmp_path: Path) -> None:
    notes = Image.Exif()
    notes[ExifTags.Base.Orientation] = 6
    deep = np.arange(12, dtype=np.uint16).reshape(3, 4) * 256
    Image.fromarray(deep).save(tmp_path / "deep.png", exif=notes)
    found = read_picture(tmp_path / "deep.png")
    np.testing.assert_array_equal(found.pixels[..., 0], np.rot90(deep, -1))


@pytest.mark.filterwarnings("ignore")  # of Pillow
@given(places=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=4))
def test_damaged_notes_are_an_error_of_ours_or_none(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "photograph.jpg"
    photograph(path, 6)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"Exif"), data.index(b"\xff\xdb")
    for place, value in places:
        data[min(start + place, end - 1)] = value
    path.write_bytes(data)
    with suppress(DataError):
        assert read_picture(path).pixels.shape in ((24, 16, 3), (16, 24, 3))
