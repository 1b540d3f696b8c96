"""From a checkpoint to a verified bundle, one stage after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torch import nn

from distillc.as_is import ONNX_NOTICE
from distillc.budgets import Budget
from distillc.codegen.dumps import Stopped
from distillc.codegen.stages import NAMES
from distillc.codegen.tuning.time_modules import HERE
from distillc.data.folders import check_folder
from distillc.delivery import deliver
from distillc.errors import UsageError
from distillc.executor.open import open_executor
from distillc.final_figures import check_quality, hybrid_latency, hybrid_quality
from distillc.frontend.formats import is_onnx
from distillc.limits import NONE, Limits
from distillc.network import Network
from distillc.options import ConversionOptions
from distillc.pipeline import Context, Pass, Pipeline, dump_data
from distillc.preflight import accept, find_meter, fit, images_of, read, tune_apart
from distillc.report.pictures import side_by_side
from distillc.runtime.bundle import Bundle
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
    onnx_scans: str = "fused",
    data: str | Path | None = None,
    families: Sequence[str] | None = None,
    objective: str | None = None,
    limits: Limits = NONE,
    measure_on: str = "host",
    overwrite: bool = False,
    seed: int = 0,
    work_dir: str | Path = ".distillc-work",
    train_on: str = "cpu",
    cluster: str | None = None,
    dump_dir: Path | None = None,
    print_after: str | None = None,
    stop_after: str | None = None,
    verify_each: bool = False,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    output: str | int | None = None,
    inputs: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    specialise: str | Path | None = None,
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
        onnx_scans=onnx_scans,
        data=data,
        families=families,
        objective=objective,
        limits=limits,
        measure_on=measure_on,
        overwrite=overwrite,
        seed=seed,
        work_dir=work_dir,
        train_on=train_on,
        cluster=cluster,
        dump_dir=dump_dir,
        print_after=print_after,
        stop_after=stop_after,
        verify_each=verify_each,
        arch=arch,
        arch_args=arch_args,
        output=output,
        inputs=inputs,
        weights_key=weights_key,
        specialise=specialise,
        trust_pickle=trust_pickle,
        sandbox=sandbox,
        tune_minutes=tune_minutes,
        progress=progress,
    )
    return run_conversion(checkpoint, options)


@full_disk()
def run_conversion(checkpoint: str | Path, options: ConversionOptions) -> Result:
    """Convert a checkpoint to a verified bundle; see `convert`."""
    if is_onnx(checkpoint):
        raise UsageError(f"{ONNX_NOTICE}: use distillc.convert_as_is", where=str(checkpoint))
    place = accept(checkpoint, options)
    meter = find_meter(options)
    effort, limits = options.effort, options.tried_limits
    folder = Path(options.data) if options.data is not None else None
    check_folder(folder)
    work = WorkDir(options.work_dir)
    ctx = Context(work, options.seed, options.train_on, options.progress)

    def passes(task: str) -> list[Pass]:
        return conversion_passes(effort, folder, task, limits, meter)

    planned = passes(options.task)
    print_after, stop_after = _of_passes(options, [each.name for each in planned])
    net = fit(read(checkpoint, options), options)
    images = images_of(net, options, folder)
    effort = effort.fitting(net)
    pipeline = Pipeline(
        passes(str(images.task)),
        verify_each=options.verify_each,
        dump_dir=options.dump_dir,
        print_after=print_after,
        stop_after=stop_after,
    )

    teacher = net
    with open_executor(options.cluster) as executor:
        net = pipeline.run(net, replace(ctx, executor=executor))
    if stop_after:
        return Result(net, None)

    tuning = None
    if options.tune_minutes:
        clock = meter.device if meter != HERE else None
        tuning = tune_apart([net, teacher], options, ctx, clock)
    records = tuning.path if tuning else None
    with ctx.progress_line("measure", 2) as shown:
        quality = hybrid_quality(teacher, net, images, effort)
        check_quality(quality, limits)
        shown.update(1, "quality")
        latency = hybrid_latency(teacher, net, records, meter, limits)
        shown.update(2, "latency")
    entries = {
        **dump_data(net),
        "size": list(options.size),  # of the images; the network may work on padded ones
        "budget": asdict(effort),
        "seed": options.seed,
        "decisions": dict(net.decisions),
        "params": {"teacher": _params(teacher.module), "hybrid": _params(net.hybrid())},
        "metrics": {
            **net.metrics,
            "quality": asdict(quality),
            "latency": latency,
            **({"tuning": tuning.summary()} if tuning else {}),
        },
        "log": [asdict(record) for record in net.log],
    }
    pictures = side_by_side(teacher, net, images)
    try:
        bundle = deliver(
            net, images, place, options, ctx, records=records, entries=entries, pictures=pictures
        )
    except Stopped:
        return Result(net, None)
    return Result(net, bundle)


def _of_passes(options: ConversionOptions, passes: Sequence[str]) -> list[str | None]:
    """Return `print_after` and `stop_after` where they are passes; None for a stage.

    Raises:
        UsageError: One is neither.
    """
    found: list[str | None] = []
    for wanted in (options.print_after, options.stop_after):
        if wanted and wanted not in (*passes, *NAMES):
            raise UsageError(
                f"no pass and no stage of code generation is named {wanted!r}",
                hint=f"passes: {', '.join(passes)}; stages: {', '.join(NAMES)}",
            )
        found.append(wanted if wanted in passes else None)
    return found


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
