"""`distillc verify`: does a bundle still compute what torch computes?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from distillc.cli.common import DEVICES, echo_json, json_option
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc verify restormer.distillc
  distillc verify restormer.distillc --data photos/ --device emulator"""
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--device", help=f"Where to run it: {DEVICES}; by default the target's own.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of clean images or pairs.")
@click.option("--images", default=2, show_default=True, help="How many images.")
@json_option
def verify(bundle: Path, device: str | None, data: Path | None, images: int, as_json: bool) -> None:
    """Run BUNDLE on real images and compare it with torch.

    Reports the largest difference, the PSNR between the two, and PSNR and SSIM against the clean
    images; beside them what teacher and hybrid had when the bundle was made. Exits with 8 when the
    difference is above 1e-4 (fp16: above 0.02, or the PSNR below 50 dB) or a file is damaged. It
    runs the bundle's code: only for bundles whose maker you trust.
    """
    from distillc.data.images import open_data
    from distillc.report.tables import verification_table
    from distillc.runtime.bundle import Bundle
    from distillc.runtime.verify import verification_images, verify_bundle

    opened = Bundle.open(bundle)
    facts = opened.manifest
    task = facts.get("task", "denoise:sigma=25")
    photos = open_data(data, task, facts["input_shape"][1])
    pairs = verification_images(photos, tuple(facts["size"]), facts["scale"], images)
    result = verify_bundle(opened, pairs, device=device)
    quality = facts.get("metrics", {}).get("quality")
    if as_json:
        echo_json({**asdict(result), "quality": quality})
        return
    Terminal().print(verification_table(result, quality))
