"""Convert the example teachers, for several speeds each.

    python -m tests.benchmarks.hybrids --train BSDS500 --out results

Leaves `results/denoise-2x.distillc` and so on. Every stage but healing and compiling is shared by
the hybrids of a task, prices by all of them. Run again after a kill: what is finished is kept.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from distillc.conversion import Limits, convert
from distillc.errors import QualityError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "checkpoints"


@dataclass(frozen=True)
class Case:
    """A task of the result table.

    Attributes:
        task: As `--task` takes it.
        teacher: The checkpoint.
        bars: Speed-up -> the PSNR loss that is allowed at it, dB; None where nothing is set.
    """

    task: str
    teacher: Path
    bars: dict[float, float | None]

    @property
    def name(self) -> str:
        return self.task.partition(":")[0]

    def bundle(self, folder: Path, speedup: float) -> Path:
        """Where the bundle of one speed-up is."""
        return folder / f"{self.name}-{speedup:g}x.distillc"


CASES = (
    Case(
        "denoise:sigma=25",
        EXAMPLES / "restormer_tiny_denoise_sigma25.pth",
        {1.3: 0.05, 1.74: None, 2: 0.15, 3: 0.35},
    ),
    Case("derain", EXAMPLES / "restormer_tiny_derain.pth", {1.3: None, 1.74: 0.1, 2: None, 3: 0.3}),
    Case("deblur", EXAMPLES / "restormer_tiny_deblur.pth", {1.3: None, 2: 0.1, 3: None, 3.4: 0.3}),
)


def make(case: Case, train: Path, out: Path) -> None:
    """Make every bundle of a case that is not there."""
    for speedup in case.bars:
        path = case.bundle(out, speedup)
        if path.exists():
            continue
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.fields[detail]}")) as progress:
            try:
                convert(
                    case.teacher,
                    task=case.task,
                    out=path,
                    budget="full",
                    data=train,
                    limits=Limits(min_speedup=speedup),
                    work_dir=out / "work",
                    progress=progress,
                )
            except QualityError as error:
                print(f"{path.name}: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="folder of clean images")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--task", choices=[each.name for each in CASES], help="only this one")
    arguments = parser.parse_args()
    for case in CASES:
        if not case.teacher.exists():
            print(f"{case.name}: skipped, {case.teacher.name} is missing", flush=True)
        elif arguments.task in (None, case.name):
            make(case, arguments.train, arguments.out)


if __name__ == "__main__":
    main()
