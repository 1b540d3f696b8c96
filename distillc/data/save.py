"""Writing pictures: what a format can hold is kept, and what it cannot is said."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from distillc.data.picture import Array, Picture, full_scale, rescaled, strips
from distillc.data.tiff import write_tiff
from distillc.errors import DataError, StorageError
from distillc.workdir import write_whole


@dataclass(frozen=True)
class _Format:
    """What a format holds, and how Pillow is told to write it."""

    bits: int = 8
    alpha: bool = False
    profile: bool = False
    exif: bool = False
    dpi: bool = False
    options: tuple[tuple[str, Any], ...] = ()


_PNG = _Format(16, alpha=True, profile=True, exif=True, dpi=True)
_TIFF = _Format(32, alpha=True, profile=True, dpi=True)
_JPEG = _Format(profile=True, exif=True, dpi=True, options=(("quality", 95), ("subsampling", 0)))
_WEBP = _Format(alpha=True, profile=True, exif=True, options=(("lossless", True),))
FORMATS = {
    ".png": _PNG,
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    **dict.fromkeys((".jpg", ".jpeg"), _JPEG),
    ".webp": _WEBP,
    ".bmp": _Format(dpi=True),
    ".jp2": _Format(alpha=True),
    ".tga": _Format(alpha=True),
    **dict.fromkeys((".ppm", ".pgm"), _Format()),
}
"""What can be written, by the ending of the name."""


def check_sink(path: Path) -> None:
    """See that a picture can be written there, before it is made.

    Raises:
        DataError: The ending is not that of a format we write.
        StorageError: There is no such folder, or it cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f"{path.suffix or 'a name without ending'} is not an image format that can be written",
            where=str(path),
            hint=f"end the name in {', '.join(FORMATS)}",
        )
    wrong = "there is a folder of that name" if path.is_dir() else ""
    if not path.parent.is_dir():
        wrong = "its folder does not exist"
    elif not os.access(path.parent, os.W_OK):
        wrong = "its folder cannot be written"
    if wrong:
        raise StorageError(wrong, where=str(path), hint="choose another place")


def write_picture(path: Path, picture: Picture) -> Picture:
    """Write a picture, whole or not at all; the name's ending says in which format.

    Returns:
        The picture as it was written, with notes of what the format cannot hold.

    Raises:
        DataError: The format cannot hold so large a picture, or see `check_sink`.
        StorageError: There is no space, or no such folder.
    """
    check_sink(path)
    form = FORMATS[path.suffix.lower()]
    fitting = _fitted(picture, form, path.suffix.lower())
    try:
        write_whole(path, lambda temporary: _write(temporary, path.suffix.lower(), fitting, form))
    except (ValueError, StorageError, struct.error, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, StorageError) else None
        if isinstance(error, StorageError) and getattr(cause, "errno", None):
            raise
        width, height = picture.size
        raise DataError(
            f"{path.suffix} cannot hold a picture of {width}x{height}",
            where=f"{path}: {cause or error}",
            hint="end the name in .png or .tif",
        ) from error
    return fitting


def _fitted(picture: Picture, form: _Format, ending: str) -> Picture:
    """The picture as a format can hold it, with notes of what is lost."""
    notes = []
    kind = picture.pixels.dtype
    if form.bits < 32 and kind != np.uint8 and (kind, form.bits) != (np.uint16, 16):
        bits = 8 if kind == np.int8 else form.bits
        if kind.kind == "f":
            notes.append(
                f"{ending} holds no floats: they are rounded to {bits} bits and cut to [0, white]; "
                ".tif keeps them"
            )
        elif kind.itemsize * 8 > bits or kind.kind == "i":
            signed = "signed " if kind.kind == "i" else ""
            better = ".png and .tif keep" if kind == np.uint16 else ".tif keeps"
            notes.append(
                f"{ending} holds {bits} bits a value, the picture has {signed}{8 * kind.itemsize}: "
                f"{better} them"
            )
        to: np.dtype[Any] = np.dtype(f"uint{bits}")
        alpha = picture.alpha
        picture = replace(
            picture,
            pixels=rescaled(picture.pixels, picture.white, to),
            alpha=None if alpha is None else rescaled(alpha, full_scale(alpha.dtype), to),
            white=full_scale(to),
        )
    if picture.alpha is not None and not form.alpha:
        if picture.alpha.min() < full_scale(picture.alpha.dtype):
            notes.append(f"{ending} holds no transparency: laid on white; .png and .tif keep it")
        picture = _on_white(picture)
    if picture.exif and not form.exif:
        notes.append(f"{ending} is written without Exif: .png and .jpg keep it")
    if picture.icc and not _fits(picture.icc, picture.channels):
        notes.append("the colour profile is for other colours than the result has: left out")
        picture = replace(picture, icc=None)
    if picture.icc and not form.profile:
        notes.append(f"{ending} is written without the colour profile: .png and .tif keep it")
    return picture.noted(*notes)


def _fits(profile: bytes, channels: int) -> bool:
    return profile[16:20] == (b"RGB " if channels == 3 else b"GRAY")


def _on_white(picture: Picture) -> Picture:
    pixels = np.empty_like(picture.pixels)
    for top, bottom in strips(len(pixels)):
        alpha = picture.opacity(top, bottom)
        values = 1 - alpha + alpha * picture.planes(top, bottom)
        pixels[top:bottom] = rescaled(values.transpose(1, 2, 0), 1, pixels.dtype)
    return replace(picture, pixels=pixels, alpha=None, white=full_scale(pixels.dtype))


def _joined(picture: Picture) -> Array:
    pixels = picture.pixels if picture.channels == 3 else picture.pixels[..., 0]
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
    return np.ascontiguousarray(pixels)


def _write(path: Path, ending: str, picture: Picture, form: _Format) -> None:
    if form is _TIFF:
        write_tiff(path, picture)
    elif form is _PNG:
        _write_png(path, picture)
    else:
        kept = {
            "icc_profile": picture.icc if form.profile else None,
            "exif": picture.exif if form.exif else None,
            "dpi": picture.dpi if form.dpi else None,
        }
        options = {name: value for name, value in kept.items() if value} | dict(form.options)
        kind = Image.registered_extensions()[ending]
        Image.fromarray(_joined(picture)).save(path, kind, **options)


_LEVEL = 3
"""Of zlib. The default (6) took five times as long for 2.5 % less, 12 megapixels of 16 bits."""
_BEGIN = 33  # bytes of a PNG up to the end of its header


def _write_png(path: Path, picture: Picture) -> None:
    """Write 8 or 16 bits; Pillow writes no 16-bit colour."""
    data = imagecodecs.png_encode(_joined(picture), level=_LEVEL)
    with path.open("wb") as file:
        file.write(data[:_BEGIN])
        if picture.icc:
            file.write(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)))
        if picture.dpi:
            across, down = (round(each / 0.0254) for each in picture.dpi)
            file.write(_chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
        if picture.exif:
            file.write(_chunk(b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
        file.write(memoryview(data)[_BEGIN:])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
