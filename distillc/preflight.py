"""What every conversion checks before it begins, and how it tunes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillc.budgets import Budget, get_budget
from distillc.checks import (
    MINUTES,
    check_file,
    check_name,
    check_real,
    check_size,
    check_writable,
    temporary_folder,
)
from distillc.codegen.tuner import TuningResult
from distillc.data.images import RestorationData, open_data
from distillc.data.tasks import Task, check_scale, parse_task
from distillc.errors import CheckpointError
from distillc.network import Network
from distillc.pipeline import Context
from distillc.runtime.devices import get_device
from distillc.runtime.place import check_place
from distillc.runtime.precision import get_precision
from distillc.targets.base import Target, get_target
from distillc.tuning import tune


@dataclass(frozen=True)
class Job:
    """What is asked of a conversion, checked.

    Attributes:
        target: What it compiles for.
        task: How clean images are degraded.
        budget: How much work it does.
        precision: Name of what the bundle computes in.
        out: The bundle's folder.
    """

    target: Target
    task: Task
    budget: Budget
    precision: str
    out: Path


def accept(
    source: str | Path,
    target: str | Target,
    task: str,
    budget: str | Budget,
    precision: str,
    out: str | Path | None,
    overwrite: bool,
    size: tuple[int, int],
    tune_minutes: float,
    folders: Sequence[Path],
) -> Job:
    """Check what can be checked before the network in `source` is read.

    Args:
        source: The checkpoint.
        target: A target or its name.
        task: How clean images are degraded.
        budget: A budget or its name.
        precision: Name of what the bundle computes in.
        out: The bundle's folder; None for the source's name.
        overwrite: Whether the bundle may take the place of another.
        size: (H, W) in pixels of the bundle.
        tune_minutes: Time to tune for.
        folders: What will be written to beside the bundle.

    Raises:
        UsageError: An unknown target, task, budget or precision, a number out of range, or a name
            that no file can have.
        CheckpointError: The source is no file.
        StorageError: A bundle cannot be written there (see `check_place`), nor can a folder.
    """
    check_size(size)
    check_real(MINUTES, tune=tune_minutes)
    check_file(Path(source), CheckpointError)
    place = Path(out) if out else Path(f"{Path(source).stem}.distillc")
    check_name(place)
    job = Job(
        get_target(target),
        parse_task(task),
        get_budget(budget),
        get_precision(precision).name,
        place,
    )
    check_place(place, overwrite)
    for folder in folders:
        check_writable(folder / "stage")
    temporary_folder()
    return job


def fit(
    net: Network, job: Job, size: tuple[int, int], data: Path | None = None
) -> tuple[Network, RestorationData]:
    """Bring a network to a size, and find what the conversion will need.

    Args:
        net: The network that was read.
        job: What is asked.
        size: (H, W) in pixels of the bundle.
        data: Folder of images or pairs; scikit-image's photographs by default.

    Raises:
        TraceError: The network cannot take the size.
        UsageError: The task is for another scale.
        DeviceError: What will verify the bundle is not complete.
        DataError: There are no images.
    """
    net = net.at(net.fitting(size))
    check_scale(job.task, net.scale)
    get_device(job.target.devices[0]).ready()
    return net, open_data(data, job.task, net.in_channels)


def tune_apart(
    networks: Sequence[Network],
    size: tuple[int, int],
    job: Job,
    minutes: float,
    ctx: Context,
    device: str | None = None,
) -> TuningResult:
    """Search the kernels of networks for so long, on a device; a second run adds to the records.

    They stay in the work directory: the user's own change the prices that a search went by.
    """
    assert ctx.work is not None
    key = {"target": job.target.name, "cpu": job.target.cpu}
    with ctx.work.stage("tune", key) as stage:
        return tune(
            networks,
            job.target,
            [size],
            minutes,
            precision=job.precision,
            device=device,
            records=stage.path("records.jsonl"),
            progress=ctx.progress,
        )
