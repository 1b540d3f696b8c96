"""A hook of mkdocs: the help of every command, as click prints it, goes onto the page `cli.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from distillc.cli import cli

_MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark of `cli.md` by one section for each command."""
    return markdown.replace(_MARK, "\n".join(_sections(cli, None)))


def _sections(command: click.Command, parent: click.Context | None) -> Iterator[str]:
    name = "distillc" if parent is None else command.name
    context = click.Context(command, parent, name, terminal_width=80, **command.context_settings)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for each in sorted(command.commands):
            yield from _sections(command.commands[each], context)
