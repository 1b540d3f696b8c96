"""A bundle on image files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from distillc.data.files import read_picture
from distillc.data.picture import (
    MOST_RESULT,
    Array,
    Picture,
    check_picture_size,
    full_scale,
    luma,
    rounded,
    strips,
)
from distillc.data.save import check_sink, write_picture
from distillc.errors import UsageError
from distillc.runtime.bands import run_in_bands
from distillc.runtime.bundle import Bundle

_MARGIN = 4  # rows around those that are enlarged: bicubic looks two far
_DEPTHS = (10, 12, 14)  # of sensors, in files of 16 bits


def restore_file(
    bundle: Bundle,
    source: Path,
    sink: Path,
    device: str | None = None,
    threads: int = 2,
    overlap: int | None = None,
    white: float | None = None,
) -> Picture:
    """Run a bundle on an image of any size and write the result, of the same depth.

    Gray stays gray and colour stays colour: a gray network gets the luma (Y of full-range ITU-R
    BT.601) of a colour picture, which keeps its chroma. Alpha and chroma are enlarged (bicubic)
    where the network enlarges.

    Args:
        bundle: Takes and gives gray images or colour.
        source: What `read_picture` reads.
        sink: Its ending says the format; profile, Exif and resolution are carried over.
        device: As of `Bundle.run`, like the rest.
        threads: Threads that compute, the caller's among them.
        overlap: Pixels that neighbouring tiles share.
        white: The number in the file that stands for white, what networks see as 1; by default
            the largest of whole numbers, 1 of floats.

    Returns:
        The result as it was written; its notes say what was changed or left out.

    Raises:
        UsageError: The network takes images of other than 1 or 3 channels; or as `Bundle.run`.
        DataError: The image cannot be read, the sink has no image ending, or it is too large.
        DeviceError: Running fails.
        StorageError: The result cannot be written.
    """
    given, made = (shape[1] for shape in (bundle.facts.input_shape, bundle.facts.output_shape))
    for channels, verb in ((given, "takes"), (made, "gives")):
        if channels not in (1, 3):
            raise UsageError(
                f"the network {verb} {channels} channels, images have 1 or 3",
                where=str(bundle.path),
                hint="give it an array: Bundle.run in Python, (1, C, H, W) float32",
            )
    check_sink(sink)
    picture = read_picture(source)
    if white:
        picture = replace(picture, white=white)
    picture = picture.noted(*_range(picture, white))
    if picture.alpha is not None and (picture.alpha == 0).any():
        picture = picture.noted(
            "colours of fully transparent pixels are replaced by those of visible ones"
        )
    width, height = picture.size
    scale = bundle.facts.scale
    check_picture_size(width * scale, height * scale, str(sink), most=MOST_RESULT)

    def rows(top: int, bottom: int) -> Array:
        return _as_channels(picture.planes(top, bottom), given)

    colours, finish, note = _plan(picture, given, made, scale)
    picture = picture.noted(*note)
    pixels = np.empty((height * scale, width * scale, colours), picture.pixels.dtype)
    store = _storing(picture)
    for top, found in run_in_bands(bundle, (width, height), rows, device, threads, overlap):
        bottom = top + found.shape[1]
        pixels[top:bottom] = store(finish(found, top // scale, bottom // scale))
    alpha = _enlarged_alpha(picture, scale)
    return write_picture(sink, replace(picture, pixels=pixels, alpha=alpha))


def _range(picture: Picture, white: float | None) -> list[str]:
    """What is to be said of numbers that do not fill the network's range, or leave it."""
    kind, largest = picture.pixels.dtype, float(picture.pixels.max())
    notes = []
    if kind.kind in "iu" and kind.itemsize == 4:
        notes.append("32-bit whole numbers are computed with 24 bits")
    if kind == np.uint16 and not white:
        for bits in _DEPTHS:
            if 255 < largest < 1 << bits:
                most = (1 << bits) - 1
                notes.append(
                    f"no value is above {largest:.0f} of 65535: if {most} is white, pass "
                    f"--white {most}, or the network sees a dark picture"
                )
                break
    elif largest > picture.white:
        notes.append(
            f"values up to {largest:g} are above white ({picture.white:g}), and beyond what "
            "networks are trained on; --white says what white is"
        )
    return notes


def _as_channels(planes: Array, channels: int) -> Array:
    if len(planes) == channels:
        return planes
    return luma(planes) if channels == 1 else np.repeat(planes, 3, axis=0)


Finish = Callable[[Array, int, int], Array]
"""Takes rows that the network gave, and the rows of the picture that they show."""


def _plan(
    picture: Picture, given: int, made: int, scale: int
) -> tuple[int, Finish, tuple[str, ...]]:
    """Channels of the result, what is done to the network's rows, and what to say of it."""
    if picture.channels == 1 and given == made == 3:
        return 1, lambda found, top, bottom: luma(found), ()
    if picture.channels == 3 and given == made == 1:

        def colour(found: Array, top: int, bottom: int) -> Array:
            before = _enlarged(picture.planes, top, bottom, picture.size[1], scale)
            return before + (found - luma(before))

        return 3, colour, ("the network is for gray: the luma is restored, the chroma carried",)
    if picture.channels == 3 and given == 1:
        return 3, lambda found, *_: found, ("the network sees only the luma",)
    return made, lambda found, *_: found, ()


def _enlarged(
    rows: Callable[[int, int], Array], top: int, bottom: int, height: int, scale: int
) -> Array:
    """Rows of a picture at the result's size."""
    if scale == 1:
        return rows(top, bottom)
    first = max(0, top - _MARGIN)
    planes = rows(first, min(height, bottom + _MARGIN))
    size = (planes.shape[2] * scale, planes.shape[1] * scale)
    large = [
        np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in planes
    ]
    return np.stack(large)[:, (top - first) * scale :][:, : (bottom - top) * scale]


def _enlarged_alpha(picture: Picture, scale: int) -> Array | None:
    if picture.alpha is None or scale == 1:
        return picture.alpha
    width, height = picture.size
    dtype = picture.alpha.dtype
    made = np.empty((height * scale, width * scale), dtype)
    for top, bottom in strips(height):
        values = _enlarged(picture.opacity, top, bottom, height, scale).clip(0, 1)[0]
        made[top * scale : bottom * scale] = rounded(values * full_scale(dtype), dtype)
    return made


def _storing(picture: Picture) -> Callable[[Array], Array]:
    """Return what makes the picture's own numbers, (h, W, C), of rows of the result.

    Whole numbers end at 0 and at white, or where the picture's end that go beyond.
    """
    dtype, ends = picture.pixels.dtype, (picture.pixels.min(), picture.pixels.max())
    exact = np.dtype(np.float64 if dtype.kind in "iu" and dtype.itemsize == 4 else np.float32)
    low, high = min(0.0, float(ends[0])), max(picture.white, float(ends[1]))

    def store(rows: Array) -> Array:
        values = rows.transpose(1, 2, 0).astype(exact)
        values *= exact.type(picture.white)
        return rounded(values, dtype, low, high)

    return store
