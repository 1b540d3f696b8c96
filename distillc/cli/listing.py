"""What the commands that list a registry share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rich.table import Table

from distillc.cli.common import echo_json
from distillc.cli.terminal import Terminal
from distillc.errors import UsageError
from distillc.registry import Registry

T = TypeVar("T")


def list_members(
    registry: Registry[T],
    as_json: bool,
    describe: Callable[[str, T], dict[str, Any]],
    header: Sequence[str],
    row: Callable[[T], Sequence[str]],
) -> None:
    """Print the members of a registry, then fail where some cannot be loaded.

    Args:
        registry: The registry.
        as_json: Print JSON instead of a table.
        describe: (name, member) -> JSON values.
        header: Heads of the table's columns after the name's.
        row: Cells of a member under them.

    Raises:
        UsageError: A member cannot be loaded; the others were printed.
    """
    members, errors = registry.load_all()
    if as_json:
        echo_json([describe(name, member) for name, member in members.items()])
    else:
        table = Table()
        table.add_column(registry.kind, no_wrap=True)
        for head in header:
            table.add_column(head, overflow="fold")
        for name, member in members.items():
            table.add_row(name, *row(member))
        Terminal().print(table)
    if errors:
        first = errors[0]
        more = f" ({len(errors)} {registry.plural} cannot be used)" if len(errors) > 1 else ""
        raise UsageError(first.what + more, where=first.where, hint=first.hint)


def first_line(member: Any) -> str:
    """Return the first line of a class's docstring."""
    return (member.__doc__ or "").strip().partition("\n")[0]
