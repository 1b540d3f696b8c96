"""`distillc run`: restore images with a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from distillc.checks import EDGES, POSITIVE, THREADS, check_writable
from distillc.cli.common import DEVICE, DEVICES, PATH, echo_json, json_option, real, whole
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc run restormer.distillc noisy.png clean.png
  distillc run restormer.distillc photo.jpg out.png --overlap 64
  distillc run restormer.distillc 12_bits_in_16.tif out.tif --white 4095"""
)
@click.argument("bundle", type=PATH)
@click.argument("image", type=PATH)
@click.argument("result", type=PATH)
@click.option(
    "--device", type=DEVICE, help=f"Where to run it: {DEVICES}; by default the target's own."
)
@click.option("--threads", type=whole(THREADS), default=2, show_default=True, help="Threads.")
@click.option("--overlap", type=whole((0, EDGES[1])), help="Pixels that neighbouring tiles share.")
@click.option(
    "--white",
    type=real("VALUE", POSITIVE),
    help="The number in IMAGE that is white, say 4095 where a 16-bit file holds 12; by default the "
    "largest of whole numbers, 1 of floats.",
)
@json_option
def run(
    bundle: Path,
    image: Path,
    result: Path,
    device: str | None,
    threads: int,
    overlap: int | None,
    white: float | None,
    as_json: bool,
) -> None:
    """Restore IMAGE with BUNDLE and write it to RESULT.

    Images may have any size: larger ones than the bundle's go through in overlapping tiles, smaller
    ones are mirrored at their edges. The result has the depth of IMAGE, its transparency, colour
    profile, Exif and resolution, where the format that RESULT ends in holds them; what is lost is
    said on standard error.
    """
    from distillc.runtime.bundle import Bundle
    from distillc.runtime.restore import restore_file

    check_writable(result)
    made = restore_file(Bundle.open(bundle), image, result, device, threads, overlap, white)
    width, height = made.size
    if as_json:
        facts = {"width": width, "height": height, "depth": made.depth, "notes": list(made.notes)}
        echo_json({"result": str(result), **facts})
        return
    for note in made.notes:
        Terminal(stderr=True).print(f"note: {note}")
    Terminal().print(f"{result}: {width}x{height}, {made.depth}")
