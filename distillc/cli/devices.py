"""`distillc devices`: what bundles can run on."""

from __future__ import annotations

import click

from distillc.cli.common import json_option
from distillc.cli.listing import first_line, list_members


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List the kinds of devices that --device takes, and how their addresses are written.

    Packages add devices through the entry point group `distillc.devices`.
    """
    from distillc.runtime.devices.base import DEVICES

    list_members(
        DEVICES,
        as_json,
        lambda name, device: {
            "name": name,
            "does": first_line(device),
            "form": name + (device.address or ""),
            "clock": device.clock,
            "programs": device.programs,
            "module": DEVICES.entry(name).value,
        },
        ("is", "written as", "its times", "runs"),
        lambda device: (
            first_line(device),
            device.name + (device.address or ""),
            "count" if device.clock else "mean nothing",
            "programs" if device.programs else "libraries",
        ),
    )
