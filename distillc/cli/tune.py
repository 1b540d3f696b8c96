"""`distillc tune`: search the schedules of networks' kernels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distillc.cli.common import (
    DEVICES,
    Size,
    echo_json,
    json_option,
    load_options,
    progress_display,
)
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc tune restormer.pth --target host --minutes 30
  distillc tune restormer.pth restormer.distillc --size 128 --size 256
  distillc tune restormer.pth --target snapdragon8elite --json"""
)
@click.argument("networks", nargs=-1, required=True, metavar="CKPT_OR_BUNDLE...")
@click.option("--target", default="host", show_default=True, help="What to tune for.")
@click.option(
    "--size",
    "sizes",
    type=Size(),
    multiple=True,
    default=["256x256"],
    show_default=True,
    help="Image size; repeatable.",
)
@click.option("--minutes", default=10.0, show_default=True, help="Time for all kernels together.")
@click.option(
    "--device",
    help=f"What runs the candidates: {DEVICES}. The target's first by default; the emulator has no "
    "clock, so there the static model prices them.",
)
@load_options
@json_option
def tune(
    networks: tuple[str, ...],
    target: str,
    sizes: tuple[tuple[int, int], ...],
    minutes: float,
    device: str | None,
    loading: dict[str, Any],
    as_json: bool,
) -> None:
    """Search the schedules of the kernels of CKPT_OR_BUNDLE.

    What is found goes into your own records, and every later build for the target uses it. The
    same command goes on behind the last finished kernel.
    """
    from distillc import load
    from distillc.report.tables import tuning_table
    from distillc.tuning import tune as run

    programs = [Path(each) / "hybrid.pt2" for each in networks]
    loaded = [
        load(program if program.exists() else each, **loading)
        for each, program in zip(networks, programs, strict=True)
    ]
    with progress_display(quiet=as_json) as progress:
        result = run(loaded, target, sizes, minutes, device=device, progress=progress)
    if as_json:
        echo_json({**asdict(result), "path": str(result.path)})
        return
    Terminal().print(tuning_table(result))
