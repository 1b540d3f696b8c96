"""What is asked of a conversion, as one object: the command line and the API build the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from distillc.budgets import Budget, get_budget
from distillc.checks import (
    MINUTES,
    SEEDS,
    check_real,
    check_size,
    check_training_device,
    check_whole,
)
from distillc.codegen.build.onnx_scans import check_scans
from distillc.codegen.dumps import Dumps
from distillc.data.tasks import Task, parse_task
from distillc.errors import UsageError
from distillc.executor.open import check_cluster
from distillc.limits import NONE, Limits
from distillc.runtime.devices import get_device
from distillc.runtime.precision import get_precision
from distillc.targets.base import Target, get_target


@dataclass(frozen=True, kw_only=True)
class BundleOptions:
    """What is asked of a bundle, whatever it is made from.

    Attributes:
        target: A target or its name.
        size: (H, W) in pixels that the bundle is built for.
        task: How clean images are degraded, say `"denoise:sigma=25"`.
        out: The bundle's folder; `<checkpoint's stem>.distillc` by default.
        budget: How much work, a `Budget` or its name. It says on how many images the bundle is
            verified, and how long is trained and searched.
        precision: What the bundle computes in; see `distillc.compile`.
        weights_beside: Whether its weights are in a file of their own.
        onnx_scans: How scans leave in `model.onnx`; see `distillc.compile`.
        overwrite: Whether `out` is replaced if it exists.
        work_dir: Where finished stages and tuning records are kept, and the bundle is made.
        tune_minutes: Minutes to search the schedules of the kernels for before they are compiled;
            the records stay in the work directory.
        arch: `package.module:Class` of the user's own network.
        arch_args: Its keyword arguments.
        output: Name or index of the image in what it returns; see `distillc.trace`.
        inputs: Name -> constant of every further input; see `distillc.load`.
        weights_key: Which weights to take from a file that holds several; see `distillc.load`.
        specialise: A picture that the network's choices are fixed for; see `distillc.load`.
        trust_pickle: Whether a pickled module, which can run any code, is loaded.
        sandbox: Whether the checkpoint is read in a process of its own.
        dump_dir: Where the state after each pass and each stage of code generation is written,
            with every kernel and the plan.
        progress: Rich display with a `detail` field; None shows nothing.

    Raises:
        UsageError: An unknown target, task, budget, precision or ONNX scans, or a number out of
            range.
    """

    target: str | Target = "snapdragon8elite"
    size: tuple[int, int] = (256, 256)
    task: str = "denoise:sigma=25"
    out: str | Path | None = None
    budget: str | Budget = "quick"
    precision: str = "fp32"
    weights_beside: bool = False
    onnx_scans: str = "fused"
    overwrite: bool = False
    work_dir: str | Path = ".distillc-work"
    tune_minutes: float = 0
    arch: str | None = None
    arch_args: Mapping[str, Any] | None = None
    output: str | int | None = None
    inputs: Mapping[str, Any] | None = None
    weights_key: str | None = None
    specialise: str | Path | None = None
    trust_pickle: bool = False
    sandbox: bool = True
    dump_dir: Path | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_size(self.size)
        check_real(MINUTES, tune=self.tune_minutes)
        get_target(self.target)
        parse_task(self.task)
        get_budget(self.budget)
        get_precision(self.precision)
        check_scans(self.onnx_scans)

    @property
    def chosen_target(self) -> Target:
        """The target."""
        return get_target(self.target)

    @property
    def chosen_task(self) -> Task:
        """The degradation."""
        return parse_task(self.task)

    @property
    def effort(self) -> Budget:
        """The budget."""
        return get_budget(self.budget)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that are written to beside the bundle's."""
        return (Path(self.work_dir), *([self.dump_dir] if self.dump_dir else []))

    @property
    def dumps(self) -> Dumps:
        """What is shown of code generation."""
        return Dumps(self.dump_dir)

    def bundle_folder(self, source: str | Path) -> Path:
        """Return the folder of the bundle that is made from a file."""
        return Path(self.out) if self.out else Path(f"{Path(source).stem}.distillc")


@dataclass(frozen=True, kw_only=True)
class ConversionOptions(BundleOptions):
    """What is asked of the conversion of a checkpoint, beside what is asked of every bundle.

    Attributes:
        data: Folder of clean images or of pairs; scikit-image's photographs by default.
        families: Surrogate labels to try, say `"mamba@attention"`, instead of the budget's.
        objective: The search's cost instead of the budget's.
        limits: What is asked of the hybrid.
        measure_on: Device that measures latency for search and limits: `"host"`, or a phone
            (`"adb"`, `"ssh:user@host"`), for which everything is compiled for `target`.
        seed: Seed of everything random.
        train_on: Torch device that trains and evaluates, `"cpu"` or `"cuda"`.
        cluster: What the jobs of training run on: `"local:N"` for N workers on this machine,
            `"auto"`, or `"ray://host:port"`; this process by default. The result is the same.
        print_after: Name of the pass, or of the stage of code generation, after which the state
            is printed.
        stop_after: Name of the last one to run; no bundle is written.
        verify_each: Whether the numbers around every pass are compared.

    Raises:
        UsageError: As for every bundle, an unknown family, torch device or cluster, a block to
            replace by what is not tried, a device whose times mean nothing, or a latency asked for
            where none is measured.
    """

    data: str | Path | None = None
    families: Sequence[str] | None = None
    objective: str | None = None
    limits: Limits = NONE
    measure_on: str = "host"
    seed: int = 0
    train_on: str = "cpu"
    cluster: str | None = None
    print_after: str | None = None
    stop_after: str | None = None
    verify_each: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(SEEDS, seed=self.seed)
        check_training_device(self.train_on)
        check_cluster(self.cluster)
        if not get_device(self.measure_on).clock:
            raise UsageError(f"the times of {self.measure_on} mean nothing", where="--measure-on")
        if self.tried_limits.max_latency_ms is not None and self.effort.objective != "latency":
            raise UsageError(
                f"the search's cost is {self.effort.objective}: no latency is measured",
                where="--max-latency-ms",
                hint="add --objective latency",
            )

    @property
    def effort(self) -> Budget:
        """The budget, with the families and the objective that were given instead of its own."""
        budget = get_budget(self.budget)
        return replace(
            budget,
            families=tuple(self.families) if self.families else budget.families,
            objective=self.objective or budget.objective,
        )

    @property
    def tried_limits(self) -> Limits:
        """The limits, with labels as the families that are tried have them."""
        return self.limits.among(self.effort.families)

    @property
    def dumps(self) -> Dumps:
        return Dumps(self.dump_dir, self.print_after, self.stop_after)
