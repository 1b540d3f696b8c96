"""A network through all stages: trace, audit, find, surrogates, distil, host, AArch64."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import distillc
from distillc.data.tasks import tasks_for
from distillc.errors import DistillcError, PassError
from distillc.network import Network
from distillc.passes import (
    ApplyReplacements,
    AuditOperators,
    DistillBlocks,
    FindAttention,
    SynthesizeSurrogates,
    Trace,
)
from distillc.pipeline import Context
from distillc.runtime.verify import verify_bundle
from distillc.workdir import write_json
from tests.benchmarks.report import describe_machine, markdown

TIMEOUT_S = 14400
"""Longest time of one network."""

STAGES = ("trace", "audit", "find", "surrogates", "distil", "host", "aarch64")
"""Methods of `Stages`, in order."""

_OF_BLOCKS = {"find", "surrogates", "distil"}


class Stages:
    """The stages of one network; each gives what a table shows of it.

    Args:
        build: Makes the network, loaded or traced.
        expected: Its blocks, as `find` gives them; None where any will do, "" for a network without
            attention, which is compiled as it is.
        task: What makes images for the surrogates; by default the first task that fits.
    """

    def __init__(
        self, build: Callable[[], Network], expected: str | None = None, task: str | None = None
    ) -> None:
        self.build = build
        self.expected = expected
        self.task = task
        self.net: Network

    def run(self, until: str = STAGES[-1]) -> dict[str, Any]:
        """Return a row: what each stage gives, its seconds, and the error that ended it."""
        row: dict[str, Any] = {"seconds": {}}
        for name in STAGES[: STAGES.index(until) + 1]:
            if self.expected == "" and name in _OF_BLOCKS:
                continue
            start = time.monotonic()
            try:
                row[name] = getattr(self, name)()
            except Exception as error:
                own = isinstance(error, DistillcError)
                text = str(error) if own else repr(error)[:600]
                row |= {name: "FAILS", "error": " ".join(text.split()), "clear": own}
                break
            finally:
                row["seconds"][name] = round(time.monotonic() - start, 1)
        return row

    def trace(self) -> str:
        net = self.build()
        self.net = Trace()(net)
        return f"x{net.scale}, multiple of {net.multiple}"

    def audit(self) -> str:
        self.net = AuditOperators()(self.net)
        return "ok"

    def find(self) -> str:
        self.net = FindAttention()(self.net)
        found = Counter(
            f"{block.kind} {type(self.net.module.get_submodule(block.name)).__name__}"
            for block in self.net.blocks
        )
        said = ", ".join(f"{count} {block}" for block, count in found.items())
        wanted = said if self.expected is None else self.expected
        if sorted(said.split(", ")) != sorted(wanted.split(", ")):
            raise PassError(f"found {said}, expected {wanted}")
        return said

    def surrogates(self) -> str:
        self.net = SynthesizeSurrogates(("conv", "mamba"))(self.net)
        return f"{len(self.net.candidates)} of {len(self.net.blocks)} blocks"

    def distil(self) -> str:
        task = self.task or tasks_for(self.net.scale, *self.net.channels)[0]
        patch = self.net.size[0]
        self.net = DistillBlocks(None, task, steps=4, batch=1, patch=patch)(self.net, Context())
        labels = {name: found[-1].label for name, found in self.net.candidates.items()}
        self.net = ApplyReplacements(labels)(self.net)
        return f"{len(labels)} replaced"

    def host(self) -> str:
        return self._compiled("host")

    def aarch64(self) -> str:
        return self._compiled("generic-aarch64")

    def _compiled(self, target: str) -> str:
        nets = [self.net.with_(decisions={})] + [self.net] * bool(self.net.decisions)
        errors = []
        for net in nets:
            with tempfile.TemporaryDirectory() as folder:
                bundle = distillc.compile(net, target, net.size, directory=Path(folder))
                errors.append(verify_bundle(bundle, []).max_error)
        return ", ".join(f"{each:.0e}" for each in errors)


def run_rows(
    command: Sequence[str], names: Sequence[str], only: Sequence[str] | None, path: Path | None
) -> list[dict[str, Any]]:
    """Return the rows of some networks, each run in a process of its own.

    Args:
        command: Module and arguments that print the row of the network that `--one` names.
        names: The networks, in order.
        only: Those to run; by default all that the file has no row of.
        path: JSON file that keeps the rows.
    """
    rows: dict[str, dict[str, Any]] = {}
    if path and path.exists():
        rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    for name in only or [each for each in names if each not in rows]:
        rows[name] = {"name": name, **_run_apart([*command, "--one", name])}
        print(rows[name], file=sys.stderr, flush=True)
        if path:
            write_json(path, {"machine": describe_machine(1), "rows": list(rows.values())})
    return [rows[name] for name in names if name in rows]


def _run_apart(command: Sequence[str]) -> dict[str, Any]:
    words = [sys.executable, "-m", *command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        row = {"error": f"not done after {TIMEOUT_S} s", "clear": False}
    except (IndexError, ValueError):
        row = {"error": done.stderr[-600:], "clear": False}
    return row


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of rows, as Markdown; the first column has this title."""
    shown = [{**row, "s": f"{sum(row.get('seconds', {}).values()):.0f}"} for row in rows]
    return markdown({title: "name"} | {each: each for each in (*STAGES, "s", "error")}, shown)
