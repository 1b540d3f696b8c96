"""What a bundle computes in, and how close to torch it must then be."""

from __future__ import annotations

from dataclasses import dataclass

from distillc.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """A way to compute.

    Attributes:
        name: The name that `--precision` takes.
        max_error: Largest absolute difference from torch, of outputs in [0, 1].
        min_psnr: Smallest PSNR between compiled and torch output, dB.
        arithmetic: `"fp32"` or `"fp16"`; see `HalfPrecision`.
        half_weights: Whether weights of float32 are stored as float16.
    """

    name: str
    max_error: float
    min_psnr: float
    arithmetic: str = "fp32"
    half_weights: bool = False


PRECISIONS = {
    each.name: each
    for each in (
        Precision("fp32", 1e-4, 0.0),
        # 50 dB is a root mean square of 0.8 of the 255 steps of an image: a restoration of 31 dB
        # loses at most 0.06 dB to an error that is independent of its own.
        Precision("fp16", 0.02, 50.0, "fp16"),
        # Eleven bits of a weight are more than an image has.
        Precision("fp16-weights", 0.01, 60.0, half_weights=True),
    )
}


def get_precision(name: str) -> Precision:
    """Return a precision by name.

    Raises:
        UsageError: There is none of this name; the message lists the known.
    """
    if name not in PRECISIONS:
        raise UsageError(
            f"unknown precision {name!r}", hint=f"known precisions: {', '.join(PRECISIONS)}"
        )
    return PRECISIONS[name]
