"""Image files: what a camera notes of how it was held."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

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


def header(path: Path, width: int, height: int) -> None:
    """Write a PNG that says it is large, and holds nothing."""
    Image.new("RGB", (1, 1)).save(path)
    data = path.read_bytes()
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    path.write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])


@pytest.mark.parametrize("read", [read_picture, image_size])
def test_pictures_that_are_too_large(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "large.png"
    header(path, 20000, 20000)
    with pytest.raises(DataError, match="20000x20000 pixels is too large"):
        read(path)
    before = Image.MAX_IMAGE_PIXELS
    header(path, 16320, 12240)  # phones make these
    assert image_size(path) == (16320, 12240)
    assert before == Image.MAX_IMAGE_PIXELS is not None


def test_a_picture_without_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags["ImageWidth"]
    struct.pack_into("<H" if tag.dtype == 3 else "<I", data, tag.valueoffset, 0)
    path.write_bytes(data)
    with pytest.raises(DataError, match="0x8 pixels is empty"):
        image_size(path)


def test_a_large_tiff_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, np.zeros((8, 8, 3), np.float32), photometric="rgb")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = [file.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
        kinds = [file.pages.first.tags[name].dtype for name in ("ImageWidth", "ImageLength")]
    for place, kind in zip(places, kinds, strict=True):
        struct.pack_into("<H" if kind == 3 else "<I", data, place, 14000)
    path.write_bytes(data)
    with pytest.raises(DataError, match="14000x14000 pixels is too large"):  # 2.2 GiB
        read_picture(path)


@pytest.mark.parametrize("what", ["folder", "pipe", "missing", "a\0b"])
def test_what_is_not_a_file(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError):
        read_picture(tmp_path / what)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), form=st.sampled_from(["png", "tif", "jpg", "webp", "gif", "jp2", "bmp"]))
def test_damage_is_an_error_of_ours_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / f"in.{form}"
    deep = np.random.default_rng(0).integers(0, 1 << 16, (9, 7, 3), np.uint16)
    if form == "tif":
        compression = data.draw(st.sampled_from([None, "lzw", "zlib", "packbits"]))
        tifffile.imwrite(path, deep, photometric="rgb", compression=compression)
    elif form == "png":
        path.write_bytes(imagecodecs.png_encode(deep))
    else:
        Image.fromarray((deep >> 8).astype(np.uint8)).save(path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(DataError):
        assert read_picture(path).pixels.ndim == 3
    with suppress(DataError):
        assert min(image_size(path)) > 0


@pytest.mark.parametrize("gamma", [1.0, 0.45455])
def test_a_gamma_that_is_left_out_is_said(gamma: float, tmp_path: Path) -> None:
    chunk = PngInfo()
    chunk.add(b"gAMA", struct.pack(">I", round(100_000 * gamma)))
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=chunk)
    said = [note for note in read_picture(tmp_path / "x.png").notes if "gamma" in note]
    assert len(said) == (gamma == 1.0)
