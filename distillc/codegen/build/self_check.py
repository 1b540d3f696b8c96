"""What the program of a bundle checks itself by: an image made by rule, and torch's output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distillc.errors import LoweringError
from distillc.frontend.static_form import StableSorts

MOST = 4096
"""Values that are compared, evenly spread over the output."""


@dataclass(frozen=True)
class SelfCheck:
    """An expected output.

    Attributes:
        output: What torch makes of `check_image`, float32 of any shape.
        max_error: Largest difference that is allowed, where values are at most 1; else times them.
    """

    output: np.ndarray[Any, Any]
    max_error: float


def check_image(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return float32 numbers in [0, 1), a hash of their places as in `native/bench.c`."""
    place = np.arange(1, np.prod(shape, dtype=np.int64) + 1, dtype=np.uint32)
    place *= np.uint32(2654435761)
    place ^= place >> np.uint32(15)
    place *= np.uint32(2246822519)
    place ^= place >> np.uint32(13)
    return (place >> np.uint32(8)).astype(np.float32).reshape(shape) / np.float32(2**24)


def self_check(module: nn.Module, shape: tuple[int, ...], max_error: float) -> SelfCheck:
    """Return what a module's program must compute of `check_image`.

    Args:
        module: Takes one float32 tensor.
        shape: Its shape.
        max_error: See `SelfCheck`.

    Raises:
        LoweringError: It computes infinite values, or none.
    """
    with torch.no_grad(), StableSorts():
        output = module(torch.from_numpy(check_image(shape)))
    if not output.isfinite().all():
        raise LoweringError(
            "the network's output is not finite on an image of random values in [0, 1)",
            hint="check its weights, and the range of values that it expects",
        )
    return SelfCheck(output.numpy(), max_error)


def emit_check(check: SelfCheck, folder: Path) -> Path:
    """Write `check.c`, which defines `dc_the_check` of `native/network.h`, and return it."""
    flat = check.output.astype(np.float32).ravel()
    count = min(MOST, flat.size)
    values = flat[np.arange(count) * flat.size // count]
    tolerance = check.max_error * max(1.0, float(np.abs(flat).max()))
    lines = [
        '#include "network.h"',
        f"static const float values[] = {{{', '.join(float(each).hex() for each in values)}}};",
        f"const dc_check dc_the_check = {{{count}, {tolerance!r}, values}};",
    ]
    path = folder / "check.c"
    path.write_text("\n".join(lines) + "\n")
    return path
