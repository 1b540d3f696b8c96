"""Options and displays that several commands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from distillc.cli.terminal import Terminal
from distillc.errors import UsageError

Item = TypeVar("Item")


class Size(click.ParamType):
    """`HxW` in pixels, or one number for a square."""

    name = "HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        words = str(value).lower().split("x")
        if len(words) > 2 or not all(word.isdigit() and int(word) > 0 for word in words):
            self.fail(f"{value!r} is not a size: write 256x256, or 256 for a square", param, ctx)
        return int(words[0]), int(words[-1])


class Replacement(click.ParamType):
    """`BLOCK=SPEC`."""

    name = "BLOCK=SPEC"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        block, equals, label = str(value).partition("=")
        if not (block and equals and label):
            self.fail(f"{value!r} is no replacement: write latent.0=scan1", param, ctx)
        return block, label


DEVICES = "host, emulator, ssh:user@host[:port], adb or adb:SERIAL"
"""What `--device` takes."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a checkpoint is loaded; the command gets them as `loading`.

    Raises:
        UsageError: `--arch-args` is not a JSON object.
    """

    @functools.wraps(command)
    def with_loading(
        arch: str | None, arch_args: str | None, trust_pickle: bool, no_sandbox: bool, **rest: Any
    ) -> Any:
        arguments = None if arch_args is None else _parse_arch_args(arch_args)
        loading = {
            "arch": arch,
            "arch_args": arguments,
            "trust_pickle": trust_pickle,
            "sandbox": not no_sandbox,
        }
        return command(loading=loading, **rest)

    options = [
        click.option(
            "--arch",
            metavar="MODULE:CLASS",
            help="Your own network's class: package.module:Class, found in the current folder or "
            "installed, or file.py:Class.",
        ),
        click.option("--arch-args", metavar="JSON", help="Its keyword arguments, as JSON."),
        click.option(
            "--trust-pickle",
            is_flag=True,
            help="Load a pickled module, or whatever a .pt2 file holds. It can run any code: only "
            "for files you made yourself.",
        ),
        click.option(
            "--no-sandbox",
            is_flag=True,
            help="Read the file in this process: not in one without network, in bounded memory "
            "and time.",
        ),
    ]
    for option in reversed(options):
        with_loading = option(with_loading)
    return with_loading


def _parse_arch_args(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"--arch-args is not JSON: {error}", where=text) from error
    if not isinstance(value, dict):
        raise UsageError("--arch-args must be a JSON object", where=text)
    return value


def echo_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(json.dumps(value, indent=2, sort_keys=True))


@contextmanager
def progress_display(quiet: bool) -> Iterator[Progress | None]:
    """Yield the rich display that passes write to (on standard error), or None when quiet."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with Progress(*columns, console=Terminal(stderr=True)) as progress:
        yield progress


def watched(
    progress: Progress | None, description: str, items: Iterable[Item], total: int
) -> Iterator[Item]:
    """Yield items, and show how many are done."""
    from distillc.pipeline import Task

    shown = Task(progress, description, total)
    for done, item in enumerate(items, 1):
        yield item
        shown.update(done)
    shown.end()
