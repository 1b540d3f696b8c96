"""Options and displays that several commands share."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from distillc.checks import (
    Range,
    check_name,
    check_real,
    check_training_device,
    check_whole,
    parse_size,
)
from distillc.cli.terminal import Terminal
from distillc.errors import UsageError
from distillc.sandbox import start_early

Item = TypeVar("Item")


class Checked(click.ParamType):
    """What a function makes of the text, or refuses by a `UsageError`.

    Args:
        name: How the help calls it.
        read: Gets the text, returns the value.
    """

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except UsageError as error:
            self.fail(f"{error.what}; {error.hint}", param, ctx)


def _replacement(text: str) -> tuple[str, str]:
    block, equals, label = text.partition("=")
    if not (block and equals and label):
        raise UsageError(f"{text!r} is not a replacement", hint="write latent.0=mamba")
    return block, label


def _path(text: str) -> Path:
    check_name(Path(text))
    return Path(text)


def _input(text: str) -> tuple[str, Any]:
    from distillc.frontend.constants import parse_input

    return parse_input(text)


def _task(text: str) -> str:
    from distillc.data.tasks import parse_task

    parse_task(text)
    return text


def _target(text: str) -> str:
    from distillc.targets.base import get_target

    return get_target(text).name


def _device(text: str) -> str:
    from distillc.runtime.devices import get_device

    return get_device(text).name


def _training_device(text: str) -> str:
    check_training_device(text)
    return text


def real(name: str, limits: Range) -> Checked:
    """Return the type of finite numbers in a range."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise UsageError(f"{text[:40]!r} is not a number", hint="write 1.5") from error
        check_real(limits, value=value)
        return value

    return Checked(name, read)


SIZE = Checked("HxW", parse_size)
REPLACEMENT = Checked("BLOCK=SPEC", _replacement)
INPUT = Checked("NAME=FILE|VALUE", _input)
PATH = Checked("PATH", _path)
TASK = Checked("TASK", _task)
TARGET = Checked("TARGET", _target)
DEVICE = Checked("DEVICE", _device)
TRAINING_DEVICE = Checked("DEVICE", _training_device)


def whole(limits: Range) -> Checked:
    """Return the type of whole numbers in a range."""

    def read(text: str) -> int:
        if not re.fullmatch("-?[0-9]{1,19}", text):
            raise UsageError(f"{text[:40]!r} is not a whole number", hint="write digits")
        value = int(text)
        check_whole(limits, value=value)
        return value

    return Checked("N", read)


DEVICES = "host, emulator, ssh:user@host[:port], adb[:SERIAL], or another of `distillc devices`"
"""What `--device` takes."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a checkpoint is loaded; the command gets them as `loading`.

    Raises:
        UsageError: `--arch-args` is not a JSON object.
    """

    @functools.wraps(command)
    def with_loading(
        arch: str | None,
        arch_args: str | None,
        output: str | None,
        inputs: tuple[tuple[str, Any], ...],
        weights_key: str | None,
        specialise: Path | None,
        trust_pickle: bool,
        no_sandbox: bool,
        **rest: Any,
    ) -> Any:
        arguments = None if arch_args is None else _parse_arch_args(arch_args)
        if not no_sandbox:
            start_early()
        loading = {
            "arch": arch,
            "arch_args": arguments,
            "output": output,
            "inputs": _once(inputs),
            "weights_key": weights_key,
            "specialise": specialise,
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
            "--output",
            metavar="NAME|INDEX",
            help="The image in what it returns, where that is several: 0, image, stages.2.",
        ),
        click.option(
            "--input",
            "inputs",
            type=INPUT,
            multiple=True,
            help="A further input, fixed to a number, a list, or the tensor, array or picture in a "
            "file: sigma=0.1, prompt=prompt.pt; repeatable.",
        ),
        click.option(
            "--weights-key",
            metavar="NAME",
            help="Which weights to take from a file that holds several: keys and a prefix of the "
            "names, with dots between. A wrong one lists what there is.",
        ),
        click.option(
            "--specialise",
            type=PATH,
            metavar="IMAGE",
            help="Fix whatever your network's Python chooses by values as it is for this image, "
            "at its size.",
        ),
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


def _once(inputs: tuple[tuple[str, Any], ...]) -> dict[str, Any] | None:
    """Return inputs by name, None where there are none."""
    names = [name for name, _ in inputs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"input {twice!r} is given twice", where="--input")
    return dict(inputs) or None


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
    from distillc.pipeline import ProgressLine

    shown = ProgressLine(progress, description, total)
    for done, item in enumerate(items, 1):
        yield item
        shown.update(done)
    shown.end()
