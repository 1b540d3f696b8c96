"""Faults of machine and disk: the same command, run again, gives the same bundle to the last bit.

    python -m tests.fuzz.faults [GROUP...] [--kills 30] [--seed 0] [--folder DIR]

- damage: every kind of damage to every file of a work folder, with the passes of a toy network.
- cache: every kind of damage to the programs and libraries of the cache.
- kill: `distillc convert` killed at random moments, again and again until it may end.
- full: no space in the work folder, in the folder of `--out` and in `TMPDIR`; then there is space.
- once: three at once in one work folder.

One line a case on standard output; ends with 1 where a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from distillc.cli import main
from distillc.frontend.structure import module_digest
from distillc.network import Network
from distillc.passes import search_replacements
from distillc.passes.apply_replacements import ApplyReplacements
from distillc.passes.distill_blocks import DistillBlocks
from distillc.passes.distill_hybrids import DistillHybrids
from distillc.passes.heal import Heal
from distillc.passes.search_replacements import SearchReplacements
from distillc.pipeline import Context, Pipeline
from distillc.runtime.bundle import Bundle
from distillc.stages import WorkDir
from distillc.surrogates import scan_kernel
from distillc.workdir import digest
from tests.fuzz import small
from tests.fuzz.damage import EVERY, JOURNALS, PROGRAMS, TENSORS, Damage
from tests.fuzz.small import Small
from tests.passes.toy import toy_network

SMALL = {"steps": 3, "batch": 1, "patch": 16}
FORCED = {"replace": {"blocks.0": "toy", "blocks.1": "toy@attention"}}
PASSES = Pipeline(
    [
        DistillBlocks(**SMALL),
        DistillHybrids(**SMALL),
        SearchReplacements(objective="transformers", trials=5, images=1, crop=16, **FORCED),
        ApplyReplacements(),
        Heal(**SMALL),
    ]
)

FILES: dict[str, dict[str, Damage]] = {
    "distill-*/*.sealed": {**EVERY, **TENSORS},
    "hybrids-*/surrogates.sealed": {**EVERY, **TENSORS},
    "search-*/hybrids.jsonl": {**EVERY, **JOURNALS},
    "search-*/judged.jsonl": {**EVERY, **JOURNALS},
    "heal-*/hybrid.sealed": {**EVERY, **TENSORS},
    "heal-*/key.json": EVERY,
    "search-*/front.json": EVERY,
    "search-*/front.png": EVERY,
}
CASES = [(pattern, kind) for pattern, kinds in FILES.items() for kind in kinds]

SILENT = {"missing", "line less", "lines in another order", "lines twice"}
"""Damage that costs nothing, or that nobody could notice."""

SILENT_LINES = {"last byte gone", "empty", "twice", "lines of Windows", "mark of byte order"}
"""The same for a file of lines: each has a checksum of its values."""


def outcome(net: Network) -> object:
    """Return what the passes decide and compute, to the last bit; times are left out."""
    candidates = [
        (each.label, each.fidelity, module_digest(each.module))
        for found in net.candidates.values()
        for each in found
    ]
    metrics = net.metrics["search"], net.metrics["heal"]
    return candidates, net.front, dict(net.decisions), module_digest(net.hybrid()), metrics


class Lines(logging.Handler):
    """What distillc warns of."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def run_passes(work: Path) -> tuple[object, list[str]]:
    """Run all passes with a work folder; return the outcome and the warnings."""
    heard, log = Lines(), logging.getLogger("distillc")
    log.addHandler(heard)
    try:
        # Drawing takes longer than all the rest.
        with mock.patch.object(search_replacements, "plot_front", lambda path, _: path.touch()):
            return outcome(PASSES.run(toy_network(), Context(WorkDir(work)))), heard.lines
    finally:
        log.removeHandler(heard)


def try_damage(finished: Path, wanted: object, pattern: str, kind: str, work: Path) -> list[str]:
    """Damage a file in a copy of a finished work folder and run the passes twice.

    Returns:
        What is wrong; nothing where all is well.
    """
    shutil.copytree(finished, work)
    path = min(work.glob(pattern))
    if not path.stat().st_size:
        path.write_bytes(b"a picture")
    FILES[pattern][kind](path, random.Random(f"{pattern} {kind}"))
    wrong = []
    result, said = run_passes(work)
    if result != wanted:
        wrong.append("another outcome")
    for_people = path.name.startswith("front.")
    harmless = for_people or kind in SILENT or (path.suffix == ".jsonl" and kind in SILENT_LINES)
    if not harmless and not any(str(path) in line for line in said):
        wrong.append("no warning names the file")
    result, said = run_passes(work)
    if result != wanted or said:
        wrong.append(f"not healed: {said}")
    return wrong


def bundle_digest(bundle: Path) -> str:
    """Name all that a bundle holds but times, and the report that shows them.

    Decisions, figures of quality, weights, programs and libraries, the other forms, the reference.
    """
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["files"]["report.html"], manifest["metrics"]["latency"]
    for each in manifest["log"]:
        del each["seconds"]
    return digest(manifest)


class Command:
    """`distillc convert` of a small network, each time in a process of its own.

    Processes are forked from this one, which has imported everything: that is half of the time.

    Args:
        folder: Where everything is.
    """

    def __init__(self, folder: Path) -> None:
        self.checkpoint = folder / "small.pth"
        torch.manual_seed(0)
        torch.save(Small().state_dict(), self.checkpoint)

    def start(self, place: Path, *more: object, out: Path | None = None, tmp: str = "tmp") -> int:
        """Start a conversion that has all its folders in `place`; return its process."""
        words = ["convert", self.checkpoint, "--arch", f"{Path(small.__file__)}:Small"]
        words += ["--work-dir", place / "work", "--out", out or place / "small.distillc"]
        words += ["--size", 16, "--budget", "smoke", "--target", "host", *more]
        return fork(place, lambda: main([str(each) for each in words]), tmp)

    def finish(self, place: Path, *more: object) -> str:
        """Run a conversion to its end; return the digest of its bundle, or how it failed."""
        code = wait(self.start(place, *more))
        return said(place, code) if code else bundle_digest(place / "small.distillc")


def fork(place: Path, run: Callable[[], object], tmp: str = "tmp") -> int:
    """Run a function in a process of its own, with cache and `TMPDIR` in `place`."""
    (place / tmp).mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    with (place / "said").open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.environ |= {
        "ZIG_GLOBAL_CACHE_DIR": str(Path.home() / ".cache" / "zig"),  # minutes of work, not ours
        "XDG_CACHE_HOME": str(place / "cache"),
        "TMPDIR": str(place / tmp),
    }
    tempfile.tempdir = None
    code = 70
    try:
        run()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Return the exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said(place: Path, code: int) -> str:
    """Say how a process ended."""
    return f"exit {code}: {(place / 'said').read_text()[-400:]}"


class Report:
    """Counts cases, and prints those that failed."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}

    def add(self, group: str, case: str, wrong: object) -> None:
        """Count a case; `wrong` says what failed, and is false where nothing did."""
        counts = self.counts.setdefault(group, [0, 0])
        counts[bool(wrong)] += 1
        print(f"{group} {case}: {wrong or 'right'}", flush=True)


def kill_at_random(
    command: Command, folder: Path, wanted: str, kills: int, source: random.Random, report: Report
) -> None:
    """Kill conversions at random moments, each up to three times before it may end.

    Only what was alive when the moment came counts as a kill.
    """
    start = time.monotonic()
    command.finish(folder / "warm")  # as long as those below take: programs are cached by now
    seconds = time.monotonic() - start
    done = number = 0
    while done < kills:
        place, cases = folder / f"kill{number}", []
        for _ in range(min(3, kills - done)):
            moment = source.uniform(0, seconds)
            child = command.start(place)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            if wait(child) >= 0:
                break
            cases.append(f"{moment:.1f} s")
        bundle = place / "small.distillc"
        found = bundle_digest(bundle) if bundle.exists() else command.finish(place)
        report.add("kill", f"at {', '.join(cases) or 'the end'}", found != wanted and found)
        done, number = done + len(cases), number + 1


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Make a folder a disk of this size; `mount` needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_disks(command: Command, folder: Path, wanted: str, report: Report) -> None:
    """Convert without space in one place, then with it."""
    disks = [("work", "32k"), ("work", "400k"), ("tmp", "16k"), ("tmp", "300k"), ("out", "400k")]
    for name, size in disks:
        place = folder / f"{name}{size}"
        out = place / ("out" if name == "out" else ".") / "small.distillc"
        with small_disk(place / name, size):
            code = wait(command.start(place, out=out))
            told = (place / "said").read_text()
            full = code == 11 and "disk is full" in told and not out.exists()
            again = ["mount", "-o", "remount,size=1g", "tmpfs", place / name]
            subprocess.run(again, check=True)
            code = wait(command.start(place, out=out)) if full else code
            found = said(place, code) if code else bundle_digest(out)
        report.add("full", f"{name} {size}", found != wanted and found)


def run_at_once(command: Command, folder: Path, wanted: str, report: Report) -> None:
    """Convert twice, and once with another limit, at once in one work folder."""
    place = folder / "once"
    limit = ("--max-drop", "5")
    alone = command.finish(folder / "limit", *limit)
    rights = {"one": wanted, "two": wanted, "limit": alone}
    children = {}
    for name in rights:
        more = limit if name == "limit" else ()
        children[name] = command.start(place, *more, out=place / f"{name}.distillc")
    for name, child in children.items():
        code = wait(child)
        found = said(place, code) if code else bundle_digest(place / f"{name}.distillc")
        report.add("once", name, found != rights[name] and found)


def use_cache(bundle: Path) -> None:
    """Run what the cache holds: the runner, and the kernel that training uses."""
    x = np.full((1, 3, 16, 16), 0.5, np.float32)
    print("output", digest(Bundle.open(bundle).run(x).tolist()))
    torch.manual_seed(0)
    shapes = ((1, 9, 4), (1, 9, 4), (1, 2, 4), (1, 9, 2), (1, 9, 2), (1, 4), (1, 4))
    y = scan_kernel.forward(*(torch.rand(shape) for shape in shapes), True, False)
    print("scan", digest(y.tolist()))


def damage_cache(folder: Path, bundle: Path, report: Report) -> None:
    """Damage every program and library of the cache, then use it."""

    def use(place: Path) -> list[str]:
        (place / "said").unlink(missing_ok=True)
        code = wait(fork(place, lambda: use_cache(bundle)))
        return [said(place, code)] if code else (place / "said").read_text().splitlines()

    place = folder / "cache"
    wanted = use(place)
    for kind, damage in {**EVERY, **PROGRAMS}.items():
        for path in sorted((place / "cache" / "distillc").glob("*-*")):
            if ".damaged" in path.name:
                continue
            damage(path, random.Random(kind))
            found = use(place)
            results = [line for line in found if line.startswith(("output", "scan"))]
            warned = any(str(path) in line for line in found) or kind in SILENT
            wrong = found if results != wanted or not warned else ""
            report.add("cache", f"{path.name} {kind}", wrong)


GROUPS = ("cache", "once", "full", "kill", "damage")


def main_campaign(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)}; all")
    parser.add_argument("--kills", type=int, default=30, help="kills at random moments")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--folder", type=Path, help="where everything is; a temporary one")
    chosen = parser.parse_args(arguments)
    groups = chosen.groups or GROUPS
    if unknown := sorted(set(groups) - set(GROUPS)):
        parser.error(f"unknown: {', '.join(unknown)}")
    torch.set_num_threads(1)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="distillc-faults-") as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if set(groups) != {"damage"}:
            run_command(folder, groups, chosen.kills, random.Random(chosen.seed), report)
        if "damage" in groups:
            right, _ = run_passes(folder / "finished")
            for number, (pattern, kind) in enumerate(CASES):
                work = folder / f"work{number}"
                wrong = try_damage(folder / "finished", right, pattern, kind, work)
                report.add("damage", f"{pattern} {kind}", wrong)
    for group, (good, bad) in report.counts.items():
        print(f"{group}: {good} right, {bad} wrong")
    return int(any(bad for _, bad in report.counts.values()))


def run_command(
    folder: Path, groups: Sequence[str], kills: int, source: random.Random, report: Report
) -> None:
    """Run the groups that need `distillc convert`."""
    command, start = Command(folder), time.monotonic()
    wanted = command.finish(folder / "first")
    seconds = time.monotonic() - start
    print(f"bundle {wanted} in {seconds:.0f} s", flush=True)
    if "cache" in groups:
        damage_cache(folder, folder / "first" / "small.distillc", report)
    if "once" in groups:
        run_at_once(command, folder, wanted, report)
    if "full" in groups and os.getuid():
        print("full: skipped, mounting small disks needs root")
    elif "full" in groups:
        fill_disks(command, folder, wanted, report)
    if "kill" in groups:
        kill_at_random(command, folder, wanted, kills, source, report)


if __name__ == "__main__":
    sys.exit(main_campaign())
