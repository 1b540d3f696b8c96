"""`distillc tasks`: what networks restore."""

from __future__ import annotations

import click

from distillc.cli.common import json_option
from distillc.cli.listing import list_members


@click.command()
@json_option
def tasks(as_json: bool) -> None:
    """List the tasks that --task takes, and their options.

    Packages add tasks through the entry point group `distillc.tasks`.
    """
    from distillc.data.tasks import TASKS

    list_members(
        TASKS,
        as_json,
        lambda name, found: {
            "name": name,
            "does": found.does,
            "options": {
                key: {"default": default, "smallest": low, "largest": high}
                for key, (default, low, high) in found.options.items()
            },
            "module": TASKS.entry(name).value,
        },
        ("does", "options"),
        lambda found: (
            found.does,
            ", ".join(
                f"{key}={default:g} ({low:g} to {high:g})"
                for key, (default, low, high) in found.options.items()
            ),
        ),
    )
