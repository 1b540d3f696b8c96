"""`distillc families`: what can stand in for a block."""

from __future__ import annotations

import click

from distillc.cli.common import json_option
from distillc.cli.listing import list_members


@click.command()
@json_option
def families(as_json: bool) -> None:
    """List the surrogate families that --family takes, and their hyper-parameters.

    Packages add families through the entry point group `distillc.families`.
    """
    from distillc.surrogates.family import FAMILIES

    list_members(
        FAMILIES,
        as_json,
        lambda name, family: {
            "name": name,
            "does": family.does,
            "options": {
                key: {"default": value, "largest": family.limits[key]}
                for key, value in family.defaults.items()
            },
            "module": FAMILIES.entry(name).value,
        },
        ("does", "hyper-parameters"),
        lambda family: (
            family.does,
            ", ".join(
                f"{key}={value} (1 to {family.limits[key]})"
                for key, value in family.defaults.items()
            ),
        ),
    )
