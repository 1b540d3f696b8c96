"""`distillc passes`: what a pipeline can be made of."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import Any

import click
from rich.table import Table

from distillc.cli.common import echo_json, json_option
from distillc.cli.terminal import Terminal


@click.command()
@json_option
def passes(as_json: bool) -> None:
    """List the passes, what each does and which it builds on.

    Packages add passes through the entry point group `distillc.passes`.
    """
    rows: list[dict[str, Any]] = []
    for entry in sorted(entry_points(group="distillc.passes"), key=lambda each: each.name):
        found = entry.load()
        rows.append(
            {
                "name": entry.name,
                "does": (inspect.getdoc(found) or "").splitlines()[0],
                "after": [each.__name__ for each in found.after],
                "module": entry.value,
            }
        )
    if as_json:
        echo_json(rows)
        return
    table = Table("pass", "does", "after")
    for row in rows:
        table.add_row(row["name"], row["does"], ", ".join(row["after"]))
    Terminal().print(table)
