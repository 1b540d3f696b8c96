"""From a checkpoint to a verified bundle, one stage after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import nn

from distillc.budgets import TIMED_THREADS, Budget
from distillc.codegen.tuning.time_modules import HERE, Meter, time_modules
from distillc.compilation import compile as compile_bundle
from distillc.data.images import RestorationData, check_folder
from distillc.errors import QualityError, UsageError
from distillc.frontend.formats import is_onnx
from distillc.frontend.load import load
from distillc.limits import NONE, Limits
from distillc.network import KEEP, Network
from distillc.onnx_conversion import NOTICE
from distillc.options import ConversionOptions
from distillc.passes.plot_front import plot_front
from distillc.pipeline import Context, Pipeline, dump_data
from distillc.preflight import accept, find_meter, fit, tune_apart
from distillc.report.html import write_report
from distillc.report.pictures import side_by_side
from distillc.runtime.bundle import Bundle
from distillc.runtime.manifest import PLOT, REPORT
from distillc.runtime.quality import EDGE, Quality, measure_quality
from distillc.runtime.verify import verification_images, verify_bundle
from distillc.stages import WorkDir
from distillc.standard_passes import conversion_passes
from distillc.targets.base import Target
from distillc.workdir import full_disk


@dataclass(frozen=True)
class Result:
    """What a conversion gives.

    Attributes:
        network: The network after the last pass.
        bundle: The verified bundle; None when the pipeline was stopped early.
    """

    network: Network
    bundle: Bundle | None


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

    The other arguments are the fields of `distillc.options.ConversionOptions`, which says
    what each means.

    Raises:
        DistillcError: One of the family, each with its exit code; `out` is not touched.
    """
    options = ConversionOptions(
        target=target,
        size=size,
        task=task,
        out=out,
        budget=budget,
        precision=precision,
        weights_beside=weights_beside,
        data=data,
        families=families,
        objective=objective,
        limits=limits,
        measure_on=measure_on,
        overwrite=overwrite,
        seed=seed,
        work_dir=work_dir,
        device=device,
        dump_dir=dump_dir,
        print_after=print_after,
        stop_after=stop_after,
        verify_each=verify_each,
        arch=arch,
        arch_args=arch_args,
        trust_pickle=trust_pickle,
        sandbox=sandbox,
        tune_minutes=tune_minutes,
        progress=progress,
    )
    return run(checkpoint, options)


@full_disk()
def run(checkpoint: str | Path, options: ConversionOptions) -> Result:
    """Convert a checkpoint to a verified bundle; see `convert`."""
    if is_onnx(checkpoint):
        raise UsageError(f"{NOTICE}: use distillc.convert_onnx", where=str(checkpoint))
    place = accept(checkpoint, options)
    meter = find_meter(options)
    effort, limits = options.effort, options.tried_limits
    folder = Path(options.data) if options.data is not None else None
    check_folder(folder)
    work = WorkDir(options.work_dir)
    ctx = Context(work, options.seed, options.device, options.progress)
    pipeline = Pipeline(
        conversion_passes(effort, folder, options.task, limits, meter),
        verify_each=options.verify_each,
        dump_dir=options.dump_dir,
        print_after=options.print_after,
        stop_after=options.stop_after,
    )
    net = load(
        checkpoint,
        arch=options.arch,
        arch_args=options.arch_args,
        trust_pickle=options.trust_pickle,
        sandbox=options.sandbox,
    )
    net, images = fit(net, options, folder)

    teacher = net
    net = pipeline.run(net, ctx)
    if options.stop_after:
        return Result(net, None)

    with work.scratch() as scratch:
        tuning = None
        if options.tune_minutes:
            clock = meter.device if meter != HERE else None
            tuning = tune_apart([net, teacher], options, ctx, clock)
        records = tuning.path if tuning else None
        pairs = verification_images(images, options.size, net.scale, effort.verify_images)
        with ctx.task("compile and verify", 5) as shown:
            quality = _quality(teacher, net, images, effort)
            shown.update(1, "quality measured")
            _check_quality(quality, limits)
            bundle = compile_bundle(
                net,
                options.target,
                options.size,
                precision=options.precision,
                weights_beside=options.weights_beside,
                directory=scratch / "bundle",
                reference=pairs[0][0],
                manifest={"task": str(options.chosen_task)},
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
                "seed": options.seed,
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
            bundle = bundle.save(place, overwrite=options.overwrite)
            shown.update(5, str(place))
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
    stats = time_modules(modules, net.input_shape, TIMED_THREADS, runs, records, meter)
    slow, fast = stats[0], stats[-1]
    return {
        "device": meter.device,
        "threads": TIMED_THREADS,
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
