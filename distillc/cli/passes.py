"""`distillc passes`: what a pipeline can be made of."""

from __future__ import annotations

import click

from distillc.cli.common import json_option
from distillc.cli.listing import first_line, list_members


@click.command()
@json_option
def passes(as_json: bool) -> None:
    """List the passes, what each does and which it builds on.

    Packages add passes through the entry point group `distillc.passes`.
    """
    from distillc.passes.registry import PASSES

    list_members(
        PASSES,
        as_json,
        lambda name, found: {
            "name": name,
            "does": first_line(found),
            "after": [each.__name__ for each in found.after],
            "module": PASSES.entry(name).value,
        },
        ("does", "after"),
        lambda found: (first_line(found), ", ".join(each.__name__ for each in found.after)),
    )
