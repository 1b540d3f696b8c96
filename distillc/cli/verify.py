"""`distillc verify`: does a bundle still compute what torch computes, and how well?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distillc.checks import RUNS
from distillc.cli.common import (
    DEVICE,
    DEVICES,
    PATH,
    TASK,
    echo_json,
    json_option,
    load_options,
    progress_display,
    watched,
    whole,
)
from distillc.cli.terminal import Terminal
from distillc.errors import UsageError

MOST = 100
"""Images of a folder that are measured, spread evenly over it."""


@click.command(
    epilog="""\b
Examples:
  distillc verify restormer.distillc
  distillc verify restormer.distillc --data photos/ --teacher restormer.pth
  distillc verify restormer.distillc --data photos/ --task denoise:sigma=15 --device emulator"""
)
@click.argument("bundle", type=PATH)
@click.option(
    "--device", type=DEVICE, help=f"Where to run it: {DEVICES}; by default the target's own."
)
@click.option(
    "--data",
    type=PATH,
    help="Folder of your own clean images or pairs: also measures hybrid and teacher on them.",
)
@click.option(
    "--task", type=TASK, help="How clean images are degraded; the bundle's task by default."
)
@click.option(
    "--teacher",
    type=PATH,
    help="Checkpoint that the bundle was made from; by default the file of that name beside the "
    "bundle or in the current folder.",
)
@click.option(
    "--images",
    type=whole(RUNS),
    default=2,
    show_default=True,
    help="How many images are compared with torch.",
)
@load_options
@json_option
def verify(
    bundle: Path,
    device: str | None,
    data: Path | None,
    task: str | None,
    teacher: Path | None,
    images: int,
    loading: dict[str, Any],
    as_json: bool,
) -> None:
    """Run BUNDLE on real images and compare it with torch.

    Reports the largest difference, the PSNR between the two, and PSNR and SSIM against the clean
    images; beside them what teacher and hybrid had when the bundle was made. With --data, also what
    the hybrid loses against its teacher on your images: mean, interval, worst. Exits with 8 when
    the difference is above 1e-4 (fp16: above 0.02, or the PSNR below 50 dB) or a file is damaged.
    It runs the bundle's code: only for bundles whose maker you trust.
    """
    from distillc.data.images import open_data, open_test_set
    from distillc.data.tasks import check_scale, parse_task, tasks_for
    from distillc.report.tables import quality_table, verification_table
    from distillc.runtime.bundle import Bundle
    from distillc.runtime.quality import measure_bundle
    from distillc.runtime.teacher import NoTeacher, load_teacher
    from distillc.runtime.verify import verification_images, verify_bundle

    named = ("arch", "arch_args", "output", "inputs", "weights_key", "specialise", "trust_pickle")
    asked = any(loading[name] for name in named)
    if data is None and (teacher is not None or asked):
        raise UsageError(
            "the teacher is measured on your images, and there are none",
            where="--teacher, --arch, --arch-args, --output, --input, --weights-key, "
            "--specialise or --trust-pickle",
            hint="add --data, or leave these options out",
        )
    opened = Bundle.open(bundle)
    facts = opened.facts
    chosen = parse_task(task or facts.task or "denoise:sigma=25")
    channels = facts.input_shape[1], facts.output_shape[1]
    photos, original, notice = None, None, None
    known = tasks_for(facts.scale, *channels)
    if task is None and known and not chosen.fits(*channels):  # it was made with pairs
        chosen = parse_task(known[0])
    check_scale(chosen, facts.scale, *channels)
    if data is None and known:
        photos = open_data(None, chosen, *channels)
    if data is not None:
        photos = open_test_set(data, chosen, *channels)
        try:
            original = load_teacher(opened, teacher, loading)
        except NoTeacher as error:
            notice = f"the hybrid is measured alone: {error}"
    pairs = verification_images(photos, facts.size, facts.scale, images) if photos else []
    result = verify_bundle(opened, pairs, device=device)
    measured = None
    if data is not None and photos is not None:
        with progress_display(quiet=as_json) as progress:
            windows = photos.unseen(facts.size, MOST)
            shown = watched(progress, "measure", windows, photos.unseen_count(MOST))
            measured = measure_bundle(opened, original, shown, photos.origin, device)
    quality = opened.manifest.get("metrics", {}).get("quality")
    if as_json:
        own = None if measured is None else {**asdict(measured), "notice": notice}
        echo_json({**asdict(result), "quality": quality, "data": own})
        return
    console = Terminal()
    console.print(verification_table(result, quality))
    if measured is not None:
        console.print(quality_table(asdict(measured), notice))
