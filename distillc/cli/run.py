"""`distillc run`: restore images with a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from distillc.cli.common import DEVICES, echo_json, json_option
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc run restormer.distillc noisy.png clean.png
  distillc run restormer.distillc photo.jpg out.png --overlap 64"""
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--device", help=f"Where to run it: {DEVICES}; by default the target's own.")
@click.option("--threads", default=2, show_default=True, help="Threads.")
@click.option("--overlap", type=int, help="Pixels that neighbouring tiles share.")
@json_option
def run(
    bundle: Path,
    image: Path,
    result: Path,
    device: str | None,
    threads: int,
    overlap: int | None,
    as_json: bool,
) -> None:
    """Restore IMAGE with BUNDLE and write it to RESULT.

    Images may have any size: larger ones than the bundle's go through in overlapping tiles, smaller
    ones are mirrored at their edges.
    """
    from distillc.runtime.bundle import Bundle
    from distillc.runtime.restore import restore_file

    width, height = restore_file(Bundle.open(bundle), image, result, device, threads, overlap)
    if as_json:
        echo_json({"result": str(result), "width": width, "height": height})
        return
    Terminal().print(f"{result}: {width}x{height}")
