"""The command line: parse, call the API, show the result. One file a command."""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import sys
import traceback
from typing import NoReturn

import click
from rich.text import Text

from distillc import __version__
from distillc.cli.bench import bench
from distillc.cli.convert import convert
from distillc.cli.devices import devices
from distillc.cli.doctor import doctor
from distillc.cli.explain_failure import explain_failure
from distillc.cli.families import families
from distillc.cli.inspect_checkpoint import inspect
from distillc.cli.interrupts import INTERRUPTED, MESSAGE, survive_imports
from distillc.cli.metrics import metrics
from distillc.cli.passes import passes
from distillc.cli.run import run
from distillc.cli.streams import standard_streams
from distillc.cli.targets import targets
from distillc.cli.tasks import tasks
from distillc.cli.terminal import Terminal
from distillc.cli.tune import tune
from distillc.cli.verify import verify
from distillc.errors import (
    DistillcError,
    OutOfMemoryError,
    UsageError,
    is_memory_error,
    reason,
)
from distillc.printable import escaped

EXIT_CODES = """\b
Exit codes: 0 done, 1 unexpected error, 2 wrong usage, 3 checkpoint, 4 tracing,
5 a pass failed, 6 lowering, 7 device, 8 verification, 9 no hybrid is good enough,
10 data, 11 storage (disk full, path taken), 12 too little memory, 13 cluster,
130 interrupted, 141 nobody reads the output any more."""


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="distillc")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Turn a transformer image-restoration network into a fast hybrid for a phone's CPU.

    \b
    Examples:
      distillc inspect restormer.pth
      distillc convert restormer.pth --target snapdragon8elite
      distillc verify restormer.distillc
    """


for command in (
    convert,
    inspect,
    run,
    verify,
    bench,
    doctor,
    tune,
    passes,
    targets,
    families,
    tasks,
    metrics,
    devices,
    explain_failure,
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error becomes a message and an exit code."""
    survive_imports()
    atexit.register(gc.freeze)  # at its end Python would look for cycles among all that torch made
    with standard_streams():
        _run(sys.argv[1:] if arguments is None else arguments)


def _run(words: list[str]) -> NoReturn:
    try:
        _check_current_folder()  # before torch is imported, whose libraries end the process
        cli(words, standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(escaped(shown.getvalue()), err=True, nl=False)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        message = Text(MESSAGE)
        message.highlight_words(["interrupted"], "yellow")
        Terminal(stderr=True).print(message)
        sys.exit(INTERRUPTED)
    except DistillcError as error:
        _show(error, as_json="--json" in words, debug="--debug" in words)
        sys.exit(error.exit_code)
    except Exception as error:
        if is_memory_error(error):
            short = OutOfMemoryError(
                f"there is too little memory: {reason(error)}",
                hint="close other programs, raise the limit (`ulimit -v`), or try a smaller --size",
            )
            _show(short, as_json="--json" in words, debug="--debug" in words)
            sys.exit(short.exit_code)
        if "--debug" in words:
            _print_traceback()
        hint = "run again as `distillc --debug ...` and report the traceback"
        unexpected = DistillcError(f"unexpected {type(error).__name__}: {error}", hint=hint)
        _show(unexpected, as_json="--json" in words, debug=False)
        sys.exit(1)
    sys.exit(0)


def _check_current_folder() -> None:
    """Refuse a current folder that was deleted.

    Raises:
        UsageError: It was.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("the current folder is gone", hint="change to another folder") from error


def _show(error: DistillcError, *, as_json: bool, debug: bool) -> None:
    if debug:
        _print_traceback()
    if as_json:
        fields = {
            "error": type(error).__name__,
            "what": error.what,
            "where": error.where,
            "next": error.hint,
            "exit_code": error.exit_code,
        }
        click.echo(json.dumps(fields, indent=2))
        return
    Terminal(stderr=True).print(Text("error:", "bold red"), str(error), soft_wrap=True)


def _print_traceback() -> None:
    print(escaped(traceback.format_exc()), file=sys.stderr, end="")
