"""A decoded picture: its numbers as the file had them, and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from distillc.errors import DataError

Array = np.ndarray[Any, Any]

MOST_PIXELS = 1 << 28
"""Larger pictures are not read. A file of a megabyte can say that it holds any number."""
MOST_RESULT = 1 << 30
"""Larger results are not made, in pixels."""
MOST_BYTES = 1 << 31
"""Of a decoded picture."""
_STRIP = 512  # rows that are converted at once


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: (H, W, 1) gray or (H, W, 3) colour: unsigned or signed integers of 8, 16 or 32
            bits, or floats of 16 or 32. Linear or not, in whatever space `icc` says: networks
            take the numbers as they are.
        alpha: (H, W), of the same dtype; None where all is opaque.
        white: The number that stands for 1, what networks take for white.
        icc: Colour profile.
        exif: Exif without orientation (`pixels` are upright) and size.
        dpi: Pixels by inch, across and down.
        notes: What was left out or changed on reading, one line each.
    """

    pixels: Array
    alpha: Array | None = None
    white: float = 0.0
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.white:
            object.__setattr__(self, "white", full_scale(self.pixels.dtype))

    @property
    def size(self) -> tuple[int, int]:
        """(W, H)."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def depth(self) -> str:
        """What a value is, in words."""
        kind = self.pixels.dtype
        words = {"f": "-bit float", "i": " signed bits"}.get(kind.kind, " bits")
        return f"{8 * kind.itemsize}{words}"

    @property
    def channels(self) -> int:
        """1 of gray pictures, 3 of colour."""
        return int(self.pixels.shape[2])

    def noted(self, *notes: str) -> Picture:
        """Return the picture with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def planes(self, top: int, bottom: int) -> Array:
        """Return rows as networks take them: (C, bottom - top, W) float32, white is 1.

        Fully transparent pixels have the colour of the nearest visible one of these rows: what
        hides there would show at the edges, where the network looks across them.
        """
        rows = self._shown(top, bottom).transpose(2, 0, 1)
        made = np.array(rows, np.float32, order="C")
        made /= np.float32(self.white)
        return made

    def shown(self) -> Picture:
        """Return the picture without its alpha channel, hidden colours replaced as by `planes`."""
        if self.alpha is None:
            return self
        whole = self._shown(0, len(self.pixels))
        return replace(self, pixels=whole, alpha=None)

    def _shown(self, top: int, bottom: int) -> Array:
        rows = self.pixels[top:bottom]
        hidden = None if self.alpha is None else self.alpha[top:bottom] == 0
        if hidden is None or not hidden.any():
            return rows
        if hidden.all():
            return np.zeros_like(rows)
        from scipy import ndimage  # which few pictures need

        y, x = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
        made: Array = rows[y, x]
        return made

    def opacity(self, top: int, bottom: int) -> Array:
        """Return rows of the alpha channel, (1, bottom - top, W) float32 in [0, 1]."""
        if self.alpha is None:
            return np.ones((1, bottom - top, self.size[0]), np.float32)
        scale = np.float32(full_scale(self.alpha.dtype))
        return self.alpha[None, top:bottom].astype(np.float32) / scale

    def as_channels(self, channels: int) -> Array:
        """Return all pixels, (H, W, channels) of the picture's dtype, in gray or in colour."""
        if channels == self.channels:
            return self.pixels
        if channels == 3:
            return np.broadcast_to(self.pixels, (*self.pixels.shape[:2], 3))
        gray = np.empty((*self.pixels.shape[:2], 1), self.pixels.dtype)
        for top, bottom in strips(len(gray)):
            rows = self.pixels[top:bottom]
            if rows.dtype == np.uint8:  # in whole numbers, as Pillow does it
                strip = Image.fromarray(np.ascontiguousarray(rows))
                gray[top:bottom, :, 0] = np.asarray(strip.convert("L"))
            else:
                values = luma(rows.transpose(2, 0, 1).astype(np.float64))
                gray[top:bottom] = rounded(values, gray.dtype).transpose(1, 2, 0)
        return gray


def full_scale(dtype: np.dtype[Any]) -> float:
    """Return the number that is white unless the user says otherwise: 1 of floats."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


def strips(height: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of every strip of a picture."""
    for top in range(0, height, _STRIP):
        yield top, min(top + _STRIP, height)


def luma(planes: Array) -> Array:
    """Return (1, H, W) of (3, H, W): Y of full-range ITU-R BT.601, exact where all are equal."""
    red, green, blue = planes
    made: Array = (green + 0.299 * (red - green) + 0.114 * (blue - green))[None]
    return made.astype(planes.dtype, copy=False)


def rounded(
    values: Array, dtype: np.dtype[Any], low: float | None = None, high: float | None = None
) -> Array:
    """Return floats as another type: whole numbers are rounded and cut to a range.

    Args:
        values: Numbers of that type's scale.
        dtype: The type.
        low: The smallest number; by default what the type can hold.
        high: The largest.
    """
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    info = np.iinfo(dtype)
    ends = (info.min if low is None else low, info.max if high is None else high)
    made: Array = np.rint(values).clip(*ends).astype(dtype)
    return made


def rescaled(pixels: Array, white: float, dtype: np.dtype[Any]) -> Array:
    """Return numbers for which `white` is white as another type, for which its full scale is."""
    made = np.empty(pixels.shape, dtype)
    for top, bottom in strips(len(pixels)):
        values = pixels[top:bottom].astype(np.float64) / white
        if np.issubdtype(dtype, np.unsignedinteger):
            values = values.clip(0, 1)
        made[top:bottom] = rounded(values * full_scale(dtype), dtype)
    return made


def check_picture_size(
    width: int, height: int, where: str, pixel: int = 1, most: int = MOST_PIXELS
) -> None:
    """Refuse what has no pixels, or more than can be held.

    Args:
        width: Its width, pixels.
        height: Its height, pixels.
        where: The file, for the message.
        pixel: Bytes of one, decoded.
        most: The most pixels that are allowed.

    Raises:
        DataError: It is.
    """
    if width < 1 or height < 1:
        raise DataError(
            f"a picture of {width}x{height} pixels is empty", where=where, hint="write it again"
        )
    if width * height > most or width * height * pixel > MOST_BYTES:
        raise DataError(
            f"a picture of {width}x{height} pixels is too large: {most} are possible, and "
            f"{MOST_BYTES >> 20} MiB decoded",
            where=where,
            hint="cut it into parts",
        )
