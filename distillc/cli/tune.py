"""`distillc tune`: search the schedules of networks' kernels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distillc.checks import MINUTES
from distillc.cli.common import (
    DEVICE,
    DEVICES,
    PATH,
    SIZE,
    TARGET,
    echo_json,
    json_option,
    load_options,
    progress_display,
    real,
)
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc tune restormer.pth --target host --minutes 30
  distillc tune restormer.pth restormer.distillc --size 128 --size 256
  distillc tune restormer.pth --target snapdragon8elite --json"""
)
@click.argument("networks", nargs=-1, required=True, type=PATH, metavar="CKPT_OR_BUNDLE...")
@click.option("--target", type=TARGET, default="host", show_default=True, help="What to tune for.")
@click.option(
    "--size",
    "sizes",
    type=SIZE,
    multiple=True,
    default=["256x256"],
    show_default=True,
    help="Image size; repeatable.",
)
@click.option(
    "--minutes",
    type=real("MINUTES", MINUTES),
    default=10.0,
    show_default=True,
    help="Time for all kernels together.",
)
@click.option(
    "--device",
    type=DEVICE,
    help=f"What runs the candidates: {DEVICES}. The target's first by default; the emulator has no "
    "clock, so there the static model says what they cost.",
)
@click.option("--dump-dir", type=PATH, help="Write each network after each stage.")
@load_options
@json_option
def tune(
    networks: tuple[Path, ...],
    target: str,
    sizes: tuple[tuple[int, int], ...],
    minutes: float,
    device: str | None,
    dump_dir: Path | None,
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

    programs = [each / "hybrid.pt2" for each in networks]
    loaded = [
        load(program if program.exists() else each, size=sizes[0], **loading)
        for each, program in zip(networks, programs, strict=True)
    ]
    with progress_display(quiet=as_json) as progress:
        result = run(
            loaded, target, sizes, minutes, device=device, dump_dir=dump_dir, progress=progress
        )
    if as_json:
        echo_json({**asdict(result), "path": str(result.path)})
        return
    Terminal().print(tuning_table(result))
