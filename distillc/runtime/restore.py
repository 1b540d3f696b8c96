"""A bundle on image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distillc.data.files import read_image, write_image
from distillc.errors import UsageError
from distillc.runtime.bundle import Bundle


def restore_file(
    bundle: Bundle,
    source: Path,
    sink: Path,
    device: str | None = None,
    threads: int = 2,
    overlap: int | None = None,
) -> tuple[int, int]:
    """Run a bundle on an image of any size and write the result.

    Args:
        bundle: Takes gray images or colour; the file is converted.
        source: What Pillow reads; an alpha channel is dropped.
        sink: Its ending says the format.
        device: As of `Bundle.run`, like the rest.
        threads: Threads.
        overlap: Pixels that neighbouring tiles share.

    Returns:
        (W, H) of the result.

    Raises:
        UsageError: The network takes no images of 1 or 3 channels; or as `Bundle.run` does.
        DataError: The image cannot be read, or the sink is no image format.
        DeviceError: Running fails.
        StorageError: The result cannot be written.
    """
    channels = bundle.facts.input_shape[1]
    if channels not in (1, 3):
        raise UsageError(
            f"the network takes {channels} channels, images have 1 or 3", where=str(bundle.path)
        )
    pixels = read_image(source, "L" if channels == 1 else "RGB")
    x = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    (y,) = bundle.run(x, device, threads, overlap)
    result = np.rint(y.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    write_image(sink, result)
    return result.shape[1], result.shape[0]
