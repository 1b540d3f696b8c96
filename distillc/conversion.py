"""The road from a checkpoint to a verified bundle, one stage after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import nn

from distillc.budgets import Budget
from distillc.codegen.measure import HERE, Meter, time_modules
from distillc.compilation import compile as compile_bundle
from distillc.data.images import RestorationData, check_folder
from distillc.errors import QualityError, UsageError
from distillc.frontend.formats import is_onnx
from distillc.frontend.load import load
from distillc.limits import NONE, Limits
from distillc.network import KEEP, Network
from distillc.onnx_conversion import NOTICE
from distillc.passes import (
    ApplyReplacements,
    AuditOperators,
    DistillBlocks,
    DistillHybrids,
    FindAttention,
    Heal,
    ProfileBlocks,
    SearchReplacements,
    SynthesizeSurrogates,
    Trace,
)
from distillc.passes.plot_front import plot_front
from distillc.pipeline import Context, Pass, Pipeline, dump_data
from distillc.preflight import accept, fit, tune_apart
from distillc.report.html import write_report
from distillc.report.pictures import side_by_side
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices import get_device
from distillc.runtime.manifest import PLOT, REPORT
from distillc.runtime.quality import EDGE, Quality, measure_quality
from distillc.runtime.verify import verification_images, verify_bundle
from distillc.stages import WorkDir
from distillc.targets.base import Target
from distillc.workdir import full_disk

THREADS = 2
"""Threads of every latency measured on the way."""


@dataclass(frozen=True)
class Result:
    """What a conversion gives.

    Attributes:
        network: The network after the last pass.
        bundle: The verified bundle; None when the pipeline was stopped early.
    """

    network: Network
    bundle: Bundle | None


def road(
    budget: Budget,
    data: Path | None,
    task: str,
    limits: Limits = NONE,
    meter: Meter = HERE,
) -> list[Pass]:
    """Return the passes of a conversion, in order.

    Raises:
        UsageError: A latency is asked for where none is measured.
    """
    if limits.max_latency_ms is not None and budget.objective != "latency":
        raise UsageError(
            f"the search's cost is {budget.objective}: no latency is measured",
            where="--max-latency-ms",
            hint="add --objective latency",
        )
    passes: list[Pass] = [
        Trace(),
        AuditOperators(),
        FindAttention(),
        SynthesizeSurrogates(budget.families),
        DistillBlocks(data, task, budget.distill_steps, budget.distill_batch, budget.patch),
    ]
    if budget.hybrid_steps:
        passes.append(
            DistillHybrids(data, task, budget.hybrid_steps, budget.distill_batch, budget.patch)
        )
    if budget.objective == "latency":
        passes.append(ProfileBlocks(THREADS, device=meter.device, target=meter.target))
    passes += [
        SearchReplacements(
            data,
            task,
            objective=budget.objective,
            trials=budget.trials,
            images=budget.search_images,
            crop=budget.search_crop,
            max_drop=limits.aimed_drop,
            min_speedup=limits.min_speedup,
            max_cost=limits.max_latency_ms,
            keep=limits.keep,
            replace=limits.replace,
            drop_option="--max-drop" if limits.search_drop is None else "--search-drop",
        ),
        ApplyReplacements(),
    ]
    if budget.heal_steps:
        passes.append(
            Heal(
                data,
                task,
                budget.heal_steps,
                budget.heal_batch,
                budget.patch,
                rounds=budget.heal_rounds,
            )
        )
    return passes


def find_meter(device: str, target: Target) -> Meter:
    """Return where a conversion measures.

    Raises:
        UsageError: An unknown device, or one whose times mean nothing.
        DeviceError: It cannot be reached.
    """
    chosen = get_device(device)
    if not chosen.clock:
        raise UsageError(f"the times of {device} mean nothing", where="--measure-on")
    chosen.ready()
    return Meter(device, target if chosen.programs else "host")


@full_disk()
def convert(
    checkpoint: str | Path,
    target: str | Target = "snapdragon8elite",
    size: tuple[int, int] = (256, 256),
    task: str = "denoise:sigma=25",
    out: str | Path | None = None,
    budget: str | Budget = "quick",
    *,
    precision: str = "fp32",
    weights_beside: bool = False,
    data: str | Path | None = None,
    families: Sequence[str] | None = None,
    objective: str | None = None,
    limits: Limits = NONE,
    measure_on: str = "host",
    overwrite: bool = False,
    seed: int = 0,
    work_dir: str | Path = ".distillc-work",
    device: str = "cpu",
    dump_dir: Path | None = None,
    print_after: str | None = None,
    stop_after: str | None = None,
    verify_each: bool = False,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
    sandbox: bool = True,
    tune_minutes: float = 0,
    progress: Progress | None = None,
) -> Result:
    """Convert a checkpoint to a verified bundle.

    Whatever can be checked is checked before anything is trained. Run again after a crash with
    the same arguments and it goes on where it stopped.

    Args:
        checkpoint: The checkpoint; see `distillc.load` for what it may be.
        target: A target or its name.
        size: (H, W) in pixels that the bundle is built for.
        task: How clean images are degraded, say `"denoise:sigma=25"`.
        out: The bundle's folder; `<checkpoint's stem>.distillc` by default.
        budget: How much work, a `Budget` or its name.
        precision: What the bundle computes in; see `distillc.compile`.
        weights_beside: Whether its weights are in a file of their own.
        data: Folder of clean images or of pairs; scikit-image's photographs by default.
        families: Surrogate labels to try, say `"scan1@attention"`, instead of the budget's.
        objective: The search's cost instead of the budget's.
        limits: What is asked of the hybrid.
        measure_on: Device whose clock the search and the limits go by: `"host"`, or a phone
            (`"adb"`, `"ssh:user@host"`), for which everything is compiled for `target`.
        overwrite: Replace `out` if it exists.
        seed: Seed of everything random.
        work_dir: Where finished stages are kept.
        device: Torch device that trains.
        dump_dir: Where to write the state after each pass.
        print_after: Name of the pass after which the state is printed.
        stop_after: Name of the last pass to run; no bundle is written.
        verify_each: Compare the numbers around every pass.
        arch: `package.module:Class` of the user's own network.
        arch_args: Its keyword arguments.
        trust_pickle: Load a pickled module, which can run any code.
        sandbox: Read the checkpoint in a process of its own.
        tune_minutes: Search the schedules of the hybrid's and the teacher's kernels for so long
            before they are compiled; the records stay in the work directory.
        progress: Rich display with a `detail` field.

    Raises:
        DistillcError: One of the family, each with its exit code; `out` is not touched.
    """
    if is_onnx(checkpoint):
        raise UsageError(f"{NOTICE}: use distillc.convert_onnx", where=str(checkpoint))
    work = WorkDir(work_dir)
    ctx = Context(work, seed, device, progress)
    folders = [work.root, *([dump_dir] if dump_dir else [])]
    job = accept(
        checkpoint, target, task, budget, precision, out, overwrite, size, tune_minutes, folders
    )
    meter = find_meter(measure_on, job.target)
    effort = job.budget
    if families:
        effort = replace(effort, families=tuple(families))
    limits = limits.among(effort.families)
    if objective:
        effort = replace(effort, objective=objective)
    folder = Path(data) if data is not None else None
    check_folder(folder)
    pipeline = Pipeline(
        road(effort, folder, task, limits, meter),
        verify_each=verify_each,
        dump_dir=dump_dir,
        print_after=print_after,
        stop_after=stop_after,
    )
    net = load(
        checkpoint,
        arch=arch,
        arch_args=arch_args,
        trust_pickle=trust_pickle,
        sandbox=sandbox,
    )
    net, images = fit(net, job, size, folder)

    teacher = net
    net = pipeline.run(net, ctx)
    if stop_after:
        return Result(net, None)

    with work.scratch() as scratch:
        tuning = None
        if tune_minutes:
            clock = meter.device if meter != HERE else None
            tuning = tune_apart([net, teacher], net.size, job, tune_minutes, ctx, clock)
        records = tuning.path if tuning else None
        pairs = verification_images(images, size, net.scale, effort.verify_images)
        with ctx.task("compile and verify", 5) as shown:
            quality = _quality(teacher, net, images, effort)
            shown.update(1, "quality measured")
            _check_quality(quality, limits)
            bundle = compile_bundle(
                net,
                job.target,
                size,
                precision=job.precision,
                weights_beside=weights_beside,
                directory=scratch / "bundle",
                reference=pairs[0][0],
                manifest={"task": str(job.task)},
                records=records,
            )
            shown.update(2, "library built")
            latency = _latency(teacher, net, records, meter)
            try:
                _check_latency(latency, limits)
            except QualityError:  # other work on the machine may be why
                latency = _latency(teacher, net, records, meter, runs=100)
                _check_latency(latency, limits)
            shown.update(3, "latency measured")
            verification = verify_bundle(bundle, pairs)
            shown.update(4, "verified")
            entries = {
                **dump_data(net),
                "budget": asdict(effort),
                "seed": seed,
                "decisions": dict(net.decisions),
                "params": {"teacher": _params(teacher.module), "hybrid": _params(net.hybrid())},
                "metrics": {
                    **net.metrics,
                    "quality": asdict(quality),
                    "latency": latency,
                    "verification": asdict(verification),
                    **({"tuning": tuning.summary()} if tuning else {}),
                },
                "log": [asdict(record) for record in net.log],
            }
            plot, report = bundle.path / PLOT, bundle.path / REPORT
            plot_front(plot, net.metrics["search"])
            write_report(
                {**bundle.manifest, **entries},
                report,
                plot,
                side_by_side(teacher, net, images),
            )
            bundle = bundle.annotate(entries, (PLOT, REPORT))
            bundle = bundle.save(job.out, overwrite=overwrite)
            shown.update(5, str(job.out))
    return Result(net, bundle)


def _quality(teacher: Network, net: Network, images: RestorationData, effort: Budget) -> Quality:
    """Measure teacher and hybrid in torch on images that nothing saw."""
    edge = max(min(EDGE, *teacher.size), effort.search_crop)  # both take memory that was asked for
    windows = images.unseen(teacher.window(edge), effort.test_images)
    return measure_quality(net.hybrid(), teacher.module, windows, images.origin)


def _latency(
    teacher: Network, net: Network, records: Path | None, meter: Meter, runs: int = 20
) -> dict[str, Any]:
    """Compile teacher and hybrid and time them in turn, in one run.

    Where nothing is replaced the two are one program, whose time is the same by definition.
    """
    replaced = sum(label != KEEP for label in net.decisions.values())
    modules = [teacher.module, net.hybrid()] if replaced else [teacher.module]
    stats = time_modules(modules, net.input_shape, THREADS, runs, records, meter)
    slow, fast = stats[0], stats[-1]
    return {
        "device": meter.device,
        "threads": THREADS,
        "teacher_ms": slow.median_ms,
        "hybrid_ms": fast.median_ms,
        "speedup": slow.median_ms / fast.median_ms,
        "replaced": replaced,
        "blocks": len(net.blocks),
    }


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check_quality(quality: Quality, limits: Limits) -> None:
    """Refuse a hybrid that loses more than was asked for, now that it is measured as a whole.

    The hint's first answer is sure to pass: the search's limit stays, so all is found again.
    """
    drop, allowed, aim = quality.drop_db, limits.max_drop, limits.aimed_drop
    if drop is None or allowed is None or aim is None or drop <= allowed:
        return
    raise QualityError(
        f"the hybrid loses {drop:.3f} dB on {quality.images} images that nothing saw, more than "
        f"--max-drop {allowed:g}",
        hint=f"take it as it is with --max-drop {drop + 0.005:.2f} --search-drop {aim}; or have "
        f"the search lose less with --search-drop {aim * allowed / drop:.2g}, or spend a larger "
        "--budget",
    )


def _check_latency(latency: Mapping[str, Any], limits: Limits) -> None:
    """Refuse a hybrid that is slower than was asked for."""
    speedup, milliseconds = latency["speedup"], latency["hybrid_ms"]
    if limits.min_speedup is not None and speedup < limits.min_speedup:
        raise QualityError(
            f"the compiled hybrid is {speedup:.2f} times as fast as the teacher, "
            f"--min-speedup asks for {limits.min_speedup}",
            hint=f"allow --min-speedup {speedup - 0.005:.2f}, or offer cheaper families (--family)",
        )
    if limits.max_latency_ms is not None and milliseconds > limits.max_latency_ms:
        raise QualityError(
            f"the compiled hybrid takes {milliseconds:.1f} ms here, --max-latency-ms asks for "
            f"{limits.max_latency_ms}",
            hint=f"allow --max-latency-ms {milliseconds + 0.05:.1f}, or offer cheaper families "
            "(--family)",
        )
