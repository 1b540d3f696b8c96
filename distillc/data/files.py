"""Image files: what Pillow reads and writes, as 8-bit arrays."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from distillc.errors import DataError
from distillc.workdir import storage_errors

Mode = Literal["L", "RGB"]

_DAMAGED = (OSError, ValueError, SyntaxError, TypeError, struct.error)
"""What Pillow raises; the last two of a damaged Exif."""


def read_image(path: Path, mode: Mode) -> np.ndarray[Any, Any]:
    """Return an image, (H, W, C) uint8, gray (one channel) or in colour, turned as its file notes.

    Raises:
        DataError: It cannot be read or decoded.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # Pillow clips 16-bit gray instead of scaling
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            pixels = np.array(image.convert(mode))
    except _DAMAGED as error:
        raise unreadable(path, error) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def write_image(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """Write an image, (H, W, C) uint8; the name's ending says in which format.

    Raises:
        DataError: The ending is no image format's.
        StorageError: There is no space, or no such folder.
    """
    if path.suffix.lower() not in Image.registered_extensions():
        raise DataError(
            f"{path.suffix or 'a name without ending'} is no image format",
            where=str(path),
            hint="end the name in .png",
        )
    with storage_errors(path):
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(path)


def image_size(path: Path) -> tuple[int, int]:
    """Return (W, H) from a file's header, as `read_image` turns it.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            notes = Image.Image.getexif(image)  # that of PNG files decodes all pixels first
            on_its_side = notes.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except _DAMAGED as error:
        raise unreadable(path, error) from error
    return (height, width) if on_its_side else (width, height)


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file or folder that cannot be read."""
    return DataError(
        f"cannot read {path.name}: {error}", where=str(path), hint="remove or replace it"
    )
