"""`distillc doctor`: whether a device can run bundles."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from distillc.cli.common import DEVICE, DEVICES, echo_json, json_option
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc doctor --device adb
  distillc doctor --device ssh:pi@raspberrypi.local"""
)
@click.option("--device", type=DEVICE, default="host", show_default=True, help=f"{DEVICES}.")
@json_option
def doctor(device: str, as_json: bool) -> None:
    """Look at what a device needs, step by step, up to what is not well."""
    from distillc.errors import DeviceError
    from distillc.runtime.devices import get_device

    findings = list(get_device(device).doctor())
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        table = Table("what", "", "seen")
        for finding in findings:
            table.add_row(finding.what, "ok" if finding.well else Text("no", "red"), finding.seen)
        Terminal().print(table)
    if not all(finding.well for finding in findings):
        raise DeviceError(f"{device} is not ready", hint=f"fix: {findings[-1].what}")
