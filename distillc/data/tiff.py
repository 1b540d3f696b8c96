"""TIFF files, of every depth, by tifffile."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from distillc.data.picture import Array, Picture, check_picture_size, full_scale, rescaled
from distillc.errors import DataError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong is raised

_PHOTO = tifffile.PHOTOMETRIC
_BASE = {_PHOTO.MINISWHITE: 1, _PHOTO.MINISBLACK: 1, _PHOTO.PALETTE: 1, _PHOTO.RGB: 3}
_BY_PILLOW = {_PHOTO.SEPARATED: "CMYK", _PHOTO.YCBCR: "YCbCr"}
_RAW = (_PHOTO.CFA, 34892)  # and LINEAR_RAW
_CONVERT = "convert it to gray or RGB first"
_ORIENTATION, _XRES, _YRES, _UNIT, _PROFILE = 274, 282, 283, 296, 34675
_INCHES = {2: 1.0, 3: 2.54}


def tiff_size(path: Path) -> tuple[int, int, int]:
    """Return width, height and orientation of the first picture, as stored."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return page.imagewidth, page.imagelength, _number(page, _ORIENTATION, 1)


def read_tiff(path: Path) -> tuple[Picture, int]:
    """Return the first picture of a TIFF as stored, and its orientation.

    Raises:
        DataError: Its numbers or colours are of a kind that cannot be restored.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        _check(page, path)
        pixel = page.samplesperpixel * page.dtype.itemsize
        check_picture_size(page.imagewidth, page.imagelength, str(path), pixel)
        notes = [f"only the first of {len(file.pages)} pictures in the file is used"]
        if len(file.pages) == 1:
            notes.clear()
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = _plain(pixels.reshape(*pixels.shape[:2], -1), page, notes)
        colours, alpha = _colours(pixels, page, path, notes)
        per_inch = _INCHES.get(_number(page, _UNIT, 2))
        dpi = [_ratio(page, tag) * (per_inch or 0) for tag in (_XRES, _YRES)]
        made = Picture(
            colours,
            alpha,
            icc=page.tags.valueof(_PROFILE),
            dpi=(dpi[0], dpi[1]) if min(dpi) > 0 else None,
            notes=tuple(notes),
        )
        return made, _number(page, _ORIENTATION, 1)


def write_tiff(path: Path, picture: Picture) -> None:
    """Write a picture, with all its bits; not its Exif."""
    pixels = picture.pixels if picture.channels == 3 else picture.pixels[..., 0]
    if picture.alpha is not None:
        pixels = np.dstack([pixels, picture.alpha])
    tifffile.imwrite(
        path,
        np.ascontiguousarray(pixels),
        photometric="rgb" if picture.channels == 3 else "minisblack",
        planarconfig="contig" if pixels.ndim == 3 else None,
        extrasamples=["unassalpha"] if picture.alpha is not None else None,
        compression="zlib",
        predictor=True,
        extratags=[(_PROFILE, 7, len(picture.icc), picture.icc, True)] if picture.icc else [],
        resolution=picture.dpi,
        resolutionunit="inch" if picture.dpi else None,
        metadata=None,
    )


def _number(page: Any, tag: int, default: int) -> int:
    found = page.tags.valueof(tag, default)
    return int(found) if isinstance(found, int) else default


def _ratio(page: Any, tag: int) -> float:
    found = page.tags.valueof(tag)
    if not isinstance(found, tuple) or len(found) != 2 or not found[1]:
        return 0.0
    return float(found[0] / found[1])


def _check(page: Any, path: Path) -> None:
    kind = None if page.dtype is None else np.dtype(page.dtype)
    wrong, hint = None, _CONVERT
    if page.photometric in _RAW or page.is_reduced:
        wrong, hint = "raw sensor data, or a preview of such", "develop it, and save 16-bit TIFF"
    elif page.axes not in ("YX", "YXS", "SYX"):
        wrong = f"pictures with the axes {page.axes}"
    elif not isinstance(page.bitspersample, int):
        wrong = f"channels of {page.bitspersample} bits"
    elif kind is None or kind.kind not in "buif" or (kind.kind in "iu" and kind.itemsize > 4):
        wrong = f"numbers of type {kind or 'unknown'}"
        hint = "save it with whole numbers of 8 to 32 bits, or floats of 16 to 64"
    elif page.photometric in _BY_PILLOW and kind != np.uint8:
        wrong = f"{_name(page)} with numbers of type {kind}"
    elif page.photometric not in (*_BASE, *_BY_PILLOW):
        wrong = f"colours of kind {_name(page)}"
    if wrong:
        raise DataError(f"{path.name} holds {wrong}", where=str(path), hint=hint)


def _name(page: Any) -> str:
    return str(getattr(page.photometric, "name", page.photometric))


def _plain(pixels: Array, page: Any, notes: list[str]) -> Array:
    """Numbers of a type with a full scale of its own, white is the largest."""
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    bits, photometric = page.bitspersample, page.photometric
    if photometric == _PHOTO.PALETTE:
        return _looked_up(np.asarray(page.colormap, np.uint16), pixels)
    if pixels.dtype == bool:
        notes.append("1 bit a pixel becomes 8 bits of gray")
        pixels = pixels * np.uint8(255)
    elif pixels.dtype.kind == "u" and bits < 8 * pixels.dtype.itemsize:
        notes.append(f"{bits} bits a value become {8 * pixels.dtype.itemsize}")
        pixels = rescaled(pixels, (1 << bits) - 1, pixels.dtype)
    elif pixels.dtype == np.float64:
        notes.append("64-bit floats are rounded to 32 bits")
        pixels = pixels.astype(np.float32)
    if photometric == _PHOTO.MINISWHITE:
        white = pixels.dtype.type(full_scale(pixels.dtype))
        notes.append("white was 0, and is the largest number now")
        pixels = white - pixels
    return pixels


def _looked_up(palette: Array, pixels: Array) -> Array:
    """The palette's colours; their 16 bits are 8 where writers added none."""
    colours, rest = palette.T[pixels[..., 0]], pixels[..., 1:]
    if not (palette % 256).any() or not (palette % 257).any():
        colours = (colours >> 8).astype(np.uint8)
    return np.dstack([colours, rescaled(rest, full_scale(rest.dtype), colours.dtype)])


def _colours(pixels: Array, page: Any, path: Path, notes: list[str]) -> tuple[Array, Array | None]:
    """Gray or RGB, and the alpha channel among the further samples."""
    if page.photometric in _BY_PILLOW:
        mode = _BY_PILLOW[page.photometric]
        if page.compression in (6, 7):  # JPEG gives RGB already, but of CMYK
            mode = "RGB" if mode == "YCbCr" else mode
        base = len(mode) if mode != "YCbCr" else 3
        colours = pixels[..., :base]
        if mode != "RGB":
            notes.append(f"{mode} is converted to RGB")
            height, width = colours.shape[:2]
            strip = Image.frombytes(mode, (width, height), np.ascontiguousarray(colours).tobytes())
            colours = np.asarray(strip.convert("RGB"))
    else:
        base = 3 if page.photometric == _PHOTO.PALETTE else _BASE[page.photometric]
        colours = pixels[..., :base]
    more = [int(kind) for kind in page.extrasamples][: pixels.shape[2] - base]
    if pixels.shape[2] < base or pixels.shape[2] > base + 2:
        raise DataError(
            f"{path.name} has {pixels.shape[2]} channels: gray, colour and alpha can be restored",
            where=str(path),
            hint=_CONVERT,
        )
    place = next((i for i, kind in enumerate(more) if kind in (1, 2)), None)
    if pixels.shape[2] - base > (place is not None):
        notes.append("a further channel of unknown meaning is left out")
    if place is None:
        return colours, None
    alpha = pixels[..., base + place]
    if more[place] == 1:
        notes.append("colours that were multiplied by alpha are divided by it")
        share = alpha[..., None].astype(np.float64) / full_scale(alpha.dtype)
        values = np.divide(colours, share, out=np.zeros(colours.shape), where=share > 0)
        if colours.dtype.kind != "f":
            values = np.rint(values).clip(0, full_scale(colours.dtype))
        colours = values.astype(colours.dtype)
    return colours, alpha
