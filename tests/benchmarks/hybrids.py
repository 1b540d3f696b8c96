"""Convert the example teachers, for several speeds each.

    python -m tests.benchmarks.hybrids --train BSDS500 --out results

Leaves `results/denoise-2x.distillc` and so on. Every stage but healing and compiling is shared by
the hybrids of a task, costs by all of them. Run again after a kill: what is finished is kept.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from distillc.conversion import convert
from distillc.errors import QualityError
from distillc.limits import Limits

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "checkpoints"


@dataclass(frozen=True)
class Case:
    """A task of the result table.

    Attributes:
        task: As `--task` takes it.
        teacher: The checkpoint.
        bars: Speed-up -> the PSNR loss that is allowed at it, dB; None where nothing is set.
        quick: Whether `--budget quick`, on scikit-image's photographs, is shown too.
    """

    task: str
    teacher: Path
    bars: dict[float, float | None]
    quick: bool = False

    @property
    def name(self) -> str:
        return self.task.partition(":")[0]

    @property
    def hybrids(self) -> dict[str, float | None]:
        """Name of a hybrid -> its speed-up; None for the quick one."""
        names: dict[str, float | None] = {f"{self.name}-{each:g}x": each for each in self.bars}
        return {f"{self.name}-quick": None, **names} if self.quick else names


CASES = (
    Case(
        "denoise:sigma=25",
        EXAMPLES / "restormer_tiny_denoise_sigma25.pth",
        {1.3: 0.05, 2: 0.15, 3: 0.35},
        quick=True,
    ),
    Case("derain", EXAMPLES / "restormer_tiny_derain.pth", {1.3: None, 1.74: 0.1, 2: None, 3: 0.3}),
    Case("deblur", EXAMPLES / "restormer_tiny_deblur.pth", {1.3: None, 2: 0.1, 3: None, 3.4: 0.3}),
)


def bundle_path(folder: Path, name: str) -> Path:
    """Return where the bundle of a hybrid is."""
    return folder / f"{name}.distillc"


def make(case: Case, train: Path, out: Path) -> None:
    """Make every bundle of a case that is not there."""
    for name, speedup in case.hybrids.items():
        path = bundle_path(out, name)
        if path.exists():
            continue
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.fields[detail]}")) as progress:
            try:
                convert(
                    case.teacher,
                    task=case.task,
                    out=path,
                    budget="full" if speedup else "quick",
                    data=train if speedup else None,
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
