"""`distillc metrics`: how quality is measured."""

from __future__ import annotations

import click

from distillc.cli.common import json_option
from distillc.cli.listing import list_members


@click.command()
@json_option
def metrics(as_json: bool) -> None:
    """List the metrics that reports show.

    Packages add metrics through the entry point group `distillc.metrics`.
    """
    from distillc.data.figures import METRICS

    list_members(
        METRICS,
        as_json,
        lambda name, metric: {
            "name": name,
            "does": metric.does,
            "module": METRICS.entry(name).value,
        },
        ("does",),
        lambda metric: (metric.does,),
    )
