"""PNG, JPEG and NumPy files in C: what Pillow and NumPy write is read, damage is refused."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from distillc.runtime.native import FLAGS, FOLDER, PICTURES
from distillc.zig import run_zig


class Picture(ctypes.Structure):
    """`dc_picture`."""

    _fields_ = (
        ("channels", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("values", ctypes.POINTER(ctypes.c_float)),
        ("bits", ctypes.c_int32),
        ("clear", ctypes.c_int32),
    )


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("pictures") / "pictures.so"
    sources = [FOLDER / f"{name}.c" for name in PICTURES]
    assert run_zig("cc", "-shared", "-fPIC", *FLAGS, "-o", path, *sources) is None
    found = ctypes.CDLL(str(path))
    for name in ("dc_decode_png", "dc_decode_jpeg", "dc_decode_npy"):
        getattr(found, name).restype = ctypes.c_char_p
    return found


def decode(functions: ctypes.CDLL, kind: str, data: bytes) -> np.ndarray | str:
    picture = Picture()
    decoder = getattr(functions, f"dc_decode_{kind}")
    wrong = decoder(data, ctypes.c_size_t(len(data)), ctypes.byref(picture))
    if wrong is not None:
        return str(wrong.decode())
    shape = (picture.channels, picture.height, picture.width)
    return np.ctypeslib.as_array(picture.values, shape).copy()


def png(image: Image.Image, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def drawn(mode: str, width: int, height: int, smooth: bool) -> Image.Image:
    random = np.random.default_rng(width * height)
    pixels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if smooth:  # matches for the packer, other filters than none
        pixels = np.cumsum(pixels // 64, axis=1, dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@given(
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    smooth=st.booleans(),
    level=st.integers(0, 9),
    strategy=st.integers(0, 4),
)
def test_what_pillow_writes(
    functions: ctypes.CDLL,
    mode: str,
    width: int,
    height: int,
    smooth: bool,
    level: int,
    strategy: int,
) -> None:
    image = drawn(mode, width, height, smooth)
    data = png(image, compress_level=level, compress_type=strategy)
    wanted = np.asarray(image.convert("L" if mode in ("L", "LA") else "RGB"))
    found = decode(functions, "png", data)
    assert isinstance(found, np.ndarray), found
    wanted = wanted[..., None] if wanted.ndim == 2 else wanted
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1) / np.float32(255))


def test_palettes_and_sixteen_bits(functions: ctypes.CDLL) -> None:
    image = drawn("RGB", 20, 30, True).quantize(200)
    found = decode(functions, "png", png(image))
    wanted = np.asarray(image.convert("RGB")).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(found, wanted)
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    found = decode(functions, "png", png(Image.fromarray(deep)))
    np.testing.assert_array_equal(found, deep[None] / np.float32(65535))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"GIF89a", "no PNG"),
        (lambda data: data[:20], "cut short"),
        (lambda data: data[:-40], "cut short"),
        (lambda data: data[:24] + b"\x04" + data[25:], "neither 8 nor 16 bits"),
        (lambda data: data[:25] + b"\x05" + data[26:], "header is damaged"),
        (lambda data: data[:28] + b"\x01" + data[29:], "interlaced"),
        (lambda data: data[:16] + b"\x7f" * 8 + data[24:], "too large"),
        (lambda data: data[:60] + b"\xff" * 20 + data[80:], "damaged"),
    ],
)
def test_damage_is_named(functions: ctypes.CDLL, change: object, message: str) -> None:
    data = change(png(drawn("RGB", 30, 20, True)))  # type: ignore[operator]
    found = decode(functions, "png", data)
    assert isinstance(found, str)
    assert message in found


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@given(
    mode=st.sampled_from(["L", "RGB"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    quality=st.integers(1, 100),
    sampling=st.integers(0, 2),
    restart=st.integers(0, 5),
)
def test_jpeg_as_pillow_reads_it(
    functions: ctypes.CDLL,
    mode: str,
    width: int,
    height: int,
    quality: int,
    sampling: int,
    restart: int,
) -> None:
    image = drawn(mode, width, height, True)
    data = jpeg(image, quality=quality, subsampling=sampling, restart_marker_blocks=restart)
    found = decode(functions, "jpeg", data)
    assert isinstance(found, np.ndarray), found
    wanted = np.atleast_3d(np.asarray(Image.open(io.BytesIO(data)))).transpose(2, 0, 1)
    # Pillow's transform rounds to integers on the way, and so do its colours between samples.
    assert np.abs(255 * found - wanted).max() <= 3.01


def test_a_photograph_in_jpeg(functions: ctypes.CDLL) -> None:
    data = jpeg(Image.fromarray(skimage.data.astronaut()), quality=90)
    found = decode(functions, "jpeg", data)
    wanted = np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)
    assert isinstance(found, np.ndarray)
    assert np.abs(255 * found - wanted).mean() < 0.3


def exif(turn: int, big_endian: bool) -> bytes:
    notes = Image.Exif()
    notes.endian = ">" if big_endian else "<"
    notes[ExifTags.Base.Make] = "A camera"
    notes[ExifTags.Base.Orientation] = turn
    return notes.tobytes()


@given(turn=st.integers(0, 9), big_endian=st.booleans(), width=st.integers(1, 40))
def test_jpeg_is_turned_as_the_camera_notes(
    functions: ctypes.CDLL, turn: int, big_endian: bool, width: int
) -> None:
    data = jpeg(drawn("RGB", width, 20, True), subsampling=0, exif=exif(turn, big_endian))
    found = decode(functions, "jpeg", data)
    assert isinstance(found, np.ndarray), found
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    wanted = np.asarray(turned).transpose(2, 0, 1)
    assert found.shape == wanted.shape
    assert np.abs(255 * found - wanted).max() <= 3.01


@given(places=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=4))
def test_damaged_notes_do_no_harm(functions: ctypes.CDLL, places: list[tuple[int, int]]) -> None:
    data = bytearray(jpeg(drawn("RGB", 8, 20, True), exif=exif(6, True)))
    start = data.index(b"Exif")
    for place, value in places:
        data[min(start + place, data.index(b"\xff\xdb") - 1)] = value
    found = decode(functions, "jpeg", bytes(data))
    assert isinstance(found, np.ndarray)
    assert found.shape in ((3, 20, 8), (3, 8, 20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"GIF89a", "no JPEG"),
        (lambda data: data[:30], "cut short"),
        (lambda data: data[:-40], "cut short"),
        (lambda data: jpeg(drawn("RGB", 30, 20, True), progressive=True), "progressive"),
        (lambda data: jpeg(drawn("RGB", 30, 20, True).convert("CMYK")), "gray and colour"),
        (lambda data: data.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "8 bits"),
        (lambda data: data.replace(b"\x00\x1f\x00\x00", b"\x00\x1f\x00\x07"), "damaged"),
    ],
)
def test_jpeg_that_cannot_be_read(
    functions: ctypes.CDLL, change: Callable[[bytes], bytes], message: str
) -> None:
    found = decode(functions, "jpeg", change(jpeg(drawn("RGB", 30, 20, True))))
    assert isinstance(found, str)
    assert message in found


@given(data=st.data(), kind=st.sampled_from(["png", "jpeg"]))
def test_flipped_bytes_do_no_harm(functions: ctypes.CDLL, data: st.DataObject, kind: str) -> None:
    write = png if kind == "png" else jpeg
    whole = bytearray(write(drawn("RGB", 20, 20, True)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = decode(functions, kind, bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    assert isinstance(found, (str, np.ndarray))


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_what_numpy_writes(functions: ctypes.CDLL) -> None:
    array = np.random.default_rng(0).random((1, 3, 5, 7), dtype=np.float32)
    np.testing.assert_array_equal(decode(functions, "npy", npy(array)), array[0])
    np.testing.assert_array_equal(decode(functions, "npy", npy(array[0])), array[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nothing", "no array of NumPy"),
        (npy(np.zeros((3, 4, 5))), "not float32"),
        (npy(np.asfortranarray(np.zeros((3, 4, 5), np.float32))), "C order"),
        (npy(np.zeros((4, 5), np.float32)), "not (C, H, W)"),
        (npy(np.zeros((2, 3, 4, 5), np.float32)), "not (C, H, W)"),
        (npy(np.zeros((3, 4, 5), np.float32))[:-1], "cut short"),
        (npy(np.zeros((3, 0, 5), np.float32)), "empty or too large"),
        (npy(np.zeros((3, 4, 5), np.float32))[:40], "header is damaged"),
    ],
)
def test_arrays_that_are_no_pictures(functions: ctypes.CDLL, data: bytes, message: str) -> None:
    found = decode(functions, "npy", data)
    assert isinstance(found, str)
    assert message in found
