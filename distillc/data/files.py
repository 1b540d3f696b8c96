"""Image files: what Pillow reads and writes, as 8-bit arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from distillc.errors import DataError
from distillc.workdir import storage_errors

Mode = Literal["L", "RGB"]


def read_image(path: Path, mode: Mode) -> np.ndarray[Any, Any]:
    """Return an image, (H, W, C) uint8, gray (one channel) or in colour.

    Raises:
        DataError: It cannot be read or decoded.
    """
    try:
        with Image.open(path) as file:
            image: Image.Image = file
            if file.mode.startswith("I;16"):  # Pillow clips 16-bit gray instead of scaling
                image = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
            pixels = np.array(image.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:
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
    """Return (W, H) from a file's header.

    Raises:
        DataError: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file or folder that cannot be read."""
    return DataError(
        f"cannot read {path.name}: {error}", where=str(path), hint="remove or replace it"
    )
