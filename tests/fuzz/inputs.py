"""Hostile inputs of all kinds, one command on each.

    python -m tests.fuzz.inputs --count 2000

Prints a table by kind, and exits with 1 when a command crashed, was killed, hung, took 4 GB, let a
control character through, or failed with an error that is not of the documented family. The input
of such a case stays in `--keep`. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.hostile.bundles import bundle_files, options, pictures
from tests.fuzz.hostile.checkpoints import names, pickles, safetensors, torch_bytes
from tests.fuzz.hostile.graphs import external, graph_bytes, graph_lies
from tests.fuzz.hostile.programs import program_bytes, program_graph
from tests.fuzz.trial import Trial, forked, record, warm, whole

Maker = Callable[[Random, Path], list[str]]

KINDS: tuple[tuple[Maker, int], ...] = (
    (torch_bytes, 5),
    (pickles, 6),
    (names, 4),
    (safetensors, 4),
    (program_bytes, 2),
    (program_graph, 5),
    (graph_bytes, 3),
    (graph_lies, 5),
    (external, 2),
    (bundle_files, 3),
    (pictures, 5),
    (options, 3),
)
"""Makers, and how often each comes."""

WHOLE = 100
"""One case of so many runs as a process of its own."""


@dataclass
class Tally:
    """What became of the inputs of one kind."""

    tried: int = 0
    accepted: int = 0
    slowest: float = 0.0
    largest: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        self.tried += 1
        self.accepted += trial.code == 0
        self.slowest = max(self.slowest, trial.seconds)
        self.largest = max(self.largest, trial.peak_bytes)
        if trial.wrong:
            self.wrong.append(trial.wrong)


def kind_of(index: int) -> Maker:
    """Return the maker of a case: each comes in its share of any run of cases."""
    shares = [maker for maker, share in KINDS for _ in range(share)]
    return shares[index * 19 % len(shares)]  # coprime, so neighbours differ


def campaign(
    count: int, seed: int, keep: Path, whole_every: int = WHOLE, first: int = 0
) -> dict[str, Tally]:
    """Try so many inputs and return what became of them, by kind."""
    warm()
    tallies: dict[str, Tally] = {maker.__name__: Tally() for maker, _ in KINDS}
    for index in range(first, first + count):
        maker = kind_of(index)
        folder = Path(tempfile.mkdtemp(prefix="hostile-"))
        words = maker(Random(f"{seed}-{index}"), folder)
        run = whole if whole_every and index % whole_every == whole_every - 1 else forked
        trial = run(words, folder)
        if trial.wrong and trial.wrong.startswith("took"):  # other work on the machine may be why
            trial = run(words, folder)
        tallies[maker.__name__].add(trial)
        if trial.wrong:
            kept = keep / f"{maker.__name__}-{seed}-{index}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True)
            (kept / "case.json").write_text(record(trial, words))
            print(f"{kept}: {trial.wrong}", flush=True)
        shutil.rmtree(folder)
        if (index - first) % 50 == 49:
            print(f"{index - first + 1} tried", file=sys.stderr, flush=True)
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """Return the tallies as lines."""
    lines = [f"{'kind':16}{'tried':>7}{'accepted':>10}{'slowest':>10}{'memory':>10}{'wrong':>7}"]
    for name, each in tallies.items():
        lines.append(
            f"{name:16}{each.tried:7}{each.accepted:10}{each.slowest:8.1f} s"
            f"{each.largest / 1e9:7.2f} GB{len(each.wrong):7}"
        )
    tried = sum(each.tried for each in tallies.values())
    wrong = sum(len(each.wrong) for each in tallies.values())
    return "\n".join([*lines, f"{tried} tried, {wrong} wrong"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, default=Path("build/hostile"))
    arguments = parser.parse_args()
    tallies = campaign(arguments.count, arguments.seed, arguments.keep, first=arguments.first)
    print(table(tallies))
    sys.exit(any(each.wrong for each in tallies.values()))


if __name__ == "__main__":
    main()
