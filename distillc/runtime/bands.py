"""Large pictures in bands of rows, so that floats of a few bands are in memory at a time.

A band is a row of the tiles that `native/tiles.c` would cut: what comes out is bit for bit what it
makes of the whole picture. Its rules for where tiles lie and how they are blended hold here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from distillc.data.picture import Array
from distillc.errors import UsageError
from distillc.runtime.bundle import Bundle

Rows = Callable[[int, int], Array]
"""Takes the first row and the end, returns (C, end - first, W) float32."""

_BYTES = 1 << 27  # of the bands that one start of the runner gets, or gives
_OVERLAP = 32


def run_in_bands(
    bundle: Bundle,
    size: tuple[int, int],
    rows: Rows,
    device: str | None = None,
    threads: int = 2,
    overlap: int | None = None,
) -> Iterator[tuple[int, Array]]:
    """Run a bundle on a picture of any size, from its top to its bottom.

    Args:
        bundle: The bundle.
        size: (W, H) of the picture.
        rows: Gives rows of the picture.
        device: As of `Bundle.run`, like the rest.
        threads: Threads that compute, the caller's among them.
        overlap: Pixels that neighbouring tiles share.

    Yields:
        The first row and rows (C', h, W * scale) float32 of the result.

    Raises:
        UsageError, DeviceError: As of `Bundle.run`.
    """
    width, height = size
    facts = bundle.facts
    _, channels, tile, across = facts.input_shape
    made, scale = facts.output_shape[1], facts.scale
    if height <= tile:
        yield 0, bundle.run(rows(0, height)[None], device, threads, overlap)[0]
        return
    half = min(tile, across) // 2
    shared = min(_OVERLAP, half // 2) if overlap is None else overlap
    if not 0 <= shared <= half:
        raise UsageError(
            f"tiles of {tile}x{across} cannot overlap by {shared} pixels",
            hint=f"choose 0 to {half}",
        )
    origins, weights = _grid(height, tile, shared, scale)
    group = max(1, _BYTES // (4 * tile * width * max(channels, made * scale**2)))
    pending: Array = np.zeros((made, tile * scale, width * scale), np.float32)
    for first in range(0, len(origins), group):
        tops = origins[first : first + group]
        x = np.stack([rows(top, top + tile) for top in tops])
        for index, band in enumerate(bundle.run(x, device, threads, overlap), first):
            pending += band * weights[index][:, None]
            last = index + 1 == len(origins)
            done = (tile if last else origins[index + 1] - origins[index]) * scale
            yield origins[index] * scale, pending[:, :done]
            pending = np.concatenate([pending[:, done:], np.zeros_like(pending[:, :done])], axis=1)


def _grid(height: int, tile: int, overlap: int, scale: int) -> tuple[list[int], list[Array]]:
    """Where tiles begin, and how much each counts at every row of its result."""
    room = height - tile
    steps = math.ceil(room / (tile - overlap))
    origins = [(2 * room * index + steps) // (2 * steps) for index in range(steps + 1)]
    place = np.arange(tile * scale, dtype=np.float32)
    quarter = np.float32(overlap) * np.float32(scale) / np.float32(4)
    total = np.zeros(height * scale, np.float32)
    weights = []
    for top in origins:
        weight = np.ones_like(place)
        if overlap and top:
            weight = np.minimum(weight, (place + np.float32(0.5) - quarter) / (2 * quarter))
        if overlap and top + tile < height:
            left = np.float32(tile * scale) - place - np.float32(0.5)
            weight = np.minimum(weight, (left - quarter) / (2 * quarter))
        weights.append(weight.clip(min=0))
        total[top * scale : (top + tile) * scale] += weights[-1]
    return origins, [
        weight / total[top * scale : (top + tile) * scale]
        for top, weight in zip(origins, weights, strict=True)
    ]
