"""Image files: every one is read here, as `Picture` with all the bits that it has."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import ExifTags, Image

from distillc.data.picture import Array, Picture, check_picture_size, rescaled, strips
from distillc.data.tiff import read_tiff, tiff_size
from distillc.errors import DataError, reason

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SRGB = (0.45455, 0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""Gamma and chromaticities of sRGB, as PNG files that have them say."""
_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    **dict.fromkeys(("RGB", "RGBX", "CMYK", "YCbCr", "HSV"), "RGB"),
    **dict.fromkeys(("RGBA", "RGBa"), "RGBA"),
}
"""Pillow's modes of 8 bits, and what they are read as."""
_SAID = {
    "1": "1 bit a pixel becomes 8 bits of gray",
    "La": "colours that were multiplied by alpha are divided by it",
    "RGBa": "colours that were multiplied by alpha are divided by it",
    "CMYK": "CMYK is converted to RGB",
    "YCbCr": "YCbCr is converted to RGB",
    "HSV": "HSV is converted to RGB",
}
_DEEP: dict[str | None, Callable[[bytes], Array]] = {
    "JPEG2000": imagecodecs.jpeg2k_decode,
    "AVIF": imagecodecs.avif_decode,
}
_HEAD = 1 << 16  # bytes in which headers are looked for
_ORIENTATION = ExifTags.Base.Orientation
_OWN_SIZE = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)
_opening = threading.Lock()


def read_picture(path: Path) -> Picture:
    """Return the picture in a file, upright; of several, the first.

    Raises:
        DataError: It cannot be read or decoded, is too large, or holds numbers or colours that
            cannot be restored.
    """
    with _decoding(path):
        if _is_tiff(path):
            picture, turn = read_tiff(path)
        else:
            picture, turn = _read_by_pillow(path)
        if picture.pixels.dtype.kind == "f" and not np.isfinite(picture.pixels).all():
            raise DataError(
                f"{path.name} holds numbers that are infinite or not a number",
                where=str(path),
                hint="replace them first",
            )
        alpha = None if picture.alpha is None else _upright(picture.alpha, turn)
        dpi = picture.dpi[::-1] if picture.dpi and turn > 4 else picture.dpi
        return replace(picture, pixels=_upright(picture.pixels, turn), alpha=alpha, dpi=dpi)


def image_size(path: Path) -> tuple[int, int]:
    """Return (W, H) from a file's header, as `read_picture` turns it.

    Raises:
        DataError: It cannot be read, or is too large.
    """
    with _decoding(path):
        if _is_tiff(path):
            width, height, turn = tiff_size(path)
        else:
            with _open(path) as image:
                width, height = image.size
                turn = _exif(image)[0]
        check_picture_size(width, height, str(path))
    return (height, width) if 4 < turn <= 8 else (width, height)


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file or folder that cannot be read."""
    return DataError(
        f"cannot read {path.name}: {reason(error)}",
        where=str(path),
        hint="replace it, or convert it to PNG or TIFF",
    )


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn whatever decoders raise of foreign bytes into a `DataError`; keep their warnings."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path.name} is not a file", where=str(path), hint="pass an image")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _TIFF


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Open a file with our own bound on its size instead of Pillow's, which is global."""
    with _opening:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image:
        yield image


def _read_by_pillow(path: Path) -> tuple[Picture, int]:
    with _open(path) as image:
        check_picture_size(*image.size, str(path))
        turn, exif, notes = _exif(image)
        if (frames := getattr(image, "n_frames", 1)) > 1:
            image.seek(0)
            notes.append(f"only the first of {frames} pictures in the file is used")
        if "xmp" in image.info:
            notes.append("XMP is left out")
        if _has_own_colours(image.info):
            notes.append("gamma and chromaticities are left out; the colours are taken as sRGB")
        dpi, icc = image.info.get("dpi"), image.info.get("icc_profile")
        pixels = _deep(image, path)
        if pixels is None:
            pixels = _shallow(image, path, notes)
    alpha = pixels[..., -1] if pixels.shape[2] in (2, 4) else None
    picture = Picture(
        pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3],
        alpha,
        icc=icc if isinstance(icc, bytes) else None,
        exif=exif,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
        notes=tuple(notes),
    )
    return picture, turn


def _has_own_colours(info: Mapping[Any, Any]) -> bool:
    """Whether a PNG file says by numbers, instead of a profile, that its colours are not sRGB."""
    if "icc_profile" in info or "srgb" in info:
        return False
    given = (info.get("gamma", _SRGB[0]), *info.get("chromaticity", _SRGB[1:]))
    return any(abs(own - usual) > 1e-3 for own, usual in zip(given, _SRGB, strict=True))


def _exif(image: Image.Image) -> tuple[int, bytes | None, list[str]]:
    """Orientation, the rest of Exif, and what there is to say of it."""
    try:
        exif = Image.Image.getexif(image)  # that of PNG files decodes all pixels first
        turn = exif.pop(_ORIENTATION, 1)
        if not len(exif):
            return _turn(turn), None, []
        for tag in _OWN_SIZE:
            exif.get_ifd(ExifTags.IFD.Exif).pop(tag, None)
        return _turn(turn), exif.tobytes(), []
    except Exception:
        return 1, None, ["Exif is damaged and is left out"]


def _turn(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _deep(image: Image.Image, path: Path) -> Array | None:
    """Numbers of more than 8 bits that Pillow would cut, (H, W, C) uint16."""
    codec, offset, rest = _stored_as(image)
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        return None
    if image.format == "PNG" and str(rest[0]).endswith(";16B"):
        return _whole(imagecodecs.png_decode(path.read_bytes()))
    if codec == "ppm" and rest[1] > 255:
        width, height = image.size
        words = np.fromfile(path, ">u2", width * height * len(image.mode), offset=offset)
        return rescaled(words.reshape(height, width, -1), rest[1], np.dtype(np.uint16))
    if image.format in _DEEP and (bits := _bits(path)) > 8:
        found = _whole(_DEEP[image.format](path.read_bytes()))
        return rescaled(found, (1 << bits) - 1, np.dtype(np.uint16))
    return None


def _stored_as(image: Image.Image) -> tuple[str, int, tuple[Any, ...]]:
    """Pillow's codec, where pixels begin, and what the codec is told; empty where it has none."""
    for codec, _, offset, rest in getattr(image, "tile", ()):
        return codec, offset, rest if isinstance(rest, tuple) else (rest,)
    return "", 0, ("",)


def _whole(array: Array) -> Array:
    return array.reshape(*array.shape[:2], -1)


def _bits(path: Path) -> int:
    """Bits a value in JPEG 2000 (its marker SIZ) and AVIF (its box `pixi`)."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for mark, offset in ((b"\xff\x4f\xff\x51", 42), (b"pixi", 9)):
        place = head.find(mark) + offset
        if place >= offset and place < len(head):
            return (head[place] & 0x7F) + (offset == 42)
    return 8


def _shallow(image: Image.Image, path: Path, notes: list[str]) -> Array:
    """What Pillow decodes, (H, W, C)."""
    codec = _stored_as(image)[0]
    image.load()  # the mode may be another then
    mode = image.mode
    if mode.startswith("I;16"):
        return _array(image, None, np.dtype(np.uint16))
    if mode == "F":
        return _array(image, None, np.dtype(np.float32))
    if mode == "I":  # of PPM, where Pillow scales to 16 bits, and of formats with 32
        found = _array(image, None, np.dtype(np.int32))
        return found.astype(np.uint16) if image.format == "PPM" else found
    if mode not in _MODES:
        raise DataError(
            f"{path.name} holds colours of kind {mode}",
            where=str(path),
            hint="convert it to gray or RGB first",
        )
    if mode in _SAID:
        notes.append(_SAID[mode])
    if codec == "SGI16":
        notes.append("8 of its 16 bits are used: PNG and TIFF are read with all")
    wanted = _MODES[mode]
    if "transparency" in image.info:
        wanted = "LA" if wanted == "L" else "RGBA"
    return _array(image, wanted, np.dtype(np.uint8))


def _array(image: Image.Image, mode: str | None, dtype: np.dtype[Any]) -> Array:
    """Decode into an array, in strips: a copy of the whole would take as much again."""
    width, height = image.size
    made = np.empty((height, width, len(mode or "L")), dtype)
    for top, bottom in strips(height):
        strip = image.crop((0, top, width, bottom))
        strip.info = image.info  # with what is transparent
        values = np.asarray(strip.convert(mode) if mode else strip)
        made[top:bottom] = values.reshape(bottom - top, width, -1)
    return made


def _upright(array: Array, turn: int) -> Array:
    """Turn (H, W, ...) as Exif notes it, without copying."""
    if turn > 4:
        array = array.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array[::-1] if turn in (3, 4, 7, 8) else array
