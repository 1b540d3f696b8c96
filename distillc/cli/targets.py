"""`distillc targets`: what can be compiled for."""

from __future__ import annotations

from dataclasses import asdict

import click

from distillc.cli.common import json_option
from distillc.cli.listing import list_members


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """List the targets that --target takes.

    Packages add targets through the entry point group `distillc.targets`.
    """
    from distillc.targets.base import TARGETS

    list_members(
        TARGETS,
        as_json,
        lambda name, target: asdict(target),
        ("CPU", "triple", "threads", "SIMD", "runs on"),
        lambda target: (
            target.cpu,
            target.triple,
            str(target.threads),
            f"{target.vector_bits} bit x {target.registers}",
            ", ".join(target.devices),
        ),
    )
