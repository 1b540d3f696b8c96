"""Arrays in `.npy` files: images of any number of channels, and pictures as tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from distillc.data.picture import Array, check_picture_size, luma
from distillc.errors import DataError, reason

NUMBERS = ("uint8", "uint16", "float16", "float32", "float64")


def array_size(path: Path) -> tuple[int, int]:
    """Return (W, H) of the image in a file, of which only the header is read.

    Raises:
        DataError: It cannot be read, or holds no image.
    """
    height, width = _open(path).shape[1:]
    return width, height


def read_array(path: Path, channels: int) -> Array:
    """Return the image in a file, (C, H, W) of the type that the file has.

    Whole numbers are such that the largest of their type is white, of others 1 is.

    Args:
        path: An array (H, W, C), (C, H, W) or (H, W); the axis of the channels is the shorter one.
        channels: How many there must be.

    Raises:
        DataError: It cannot be read, holds no image, one of other channels, or numbers that are
            not finite.
    """
    found = _open(path)
    if found.shape[0] != channels:
        raise DataError(
            f"{path.name} has {found.shape[0]} channels, {channels} are needed",
            where=str(path),
            hint="channels are the first axis or the last one, whichever is shorter",
        )
    made: Array = np.ascontiguousarray(found)
    made = made.astype(np.float32) if made.dtype.kind == "f" else made
    if made.dtype.kind == "f" and not np.isfinite(made).all():
        raise DataError(
            f"{path.name} holds numbers that are infinite or not a number",
            where=str(path),
            hint="replace them first",
        )
    return made


def _open(path: Path) -> Array:
    """Return a file's image as (C, H, W), mapped and not read."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise DataError(
            f"cannot read {path.name}: {reason(error)}",
            where=str(path),
            hint="write it with numpy.save(path, array)",
        ) from error
    if found.ndim not in (2, 3) or found.dtype.name not in NUMBERS:
        raise DataError(
            f"{path.name} holds {found.dtype.name} of shape {found.shape}, which is not an image",
            where=str(path),
            hint=f"write (H, W, C) or (C, H, W) of {', '.join(NUMBERS)}",
        )
    if found.ndim == 2:
        found = found[None]
    elif found.shape[2] < found.shape[0]:
        found = found.transpose(2, 0, 1)
    height, width = found.shape[1:]
    check_picture_size(width, height, str(path), pixel=found.shape[0] * found.dtype.itemsize)
    return found


def as_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Return pictures (B, C, H, W) in gray, by the luma of ITU-R BT.601, or as they are."""
    if images.shape[1] == channels:
        return images
    return torch.from_numpy(np.stack([luma(each) for each in images.numpy()]))
