"""`distillc targets`: what can be compiled for."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from distillc.cli.common import echo_json, json_option
from distillc.cli.terminal import Terminal


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """List the targets that --target takes.

    Packages add targets through the entry point group `distillc.targets`.
    """
    from distillc.targets.base import targets as known

    found = [target for _, target in sorted(known().items())]
    if as_json:
        echo_json([asdict(target) for target in found])
        return
    table = Table("target", "CPU", "triple", "cores", "SIMD", "runs on")
    for target in found:
        cores = "+".join(str(count) for count in target.cores)
        simd = f"{target.vector_bits} bit x {target.registers}"
        devices = ", ".join(target.devices)
        table.add_row(target.name, target.cpu, target.triple, cores, simd, devices)
    Terminal().print(table)
