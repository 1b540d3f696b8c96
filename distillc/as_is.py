"""From a network to a verified bundle as it is: nothing is distilled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from distillc.budgets import Budget
from distillc.delivery import deliver
from distillc.errors import UsageError
from distillc.frontend.constants import read_inputs
from distillc.frontend.formats import is_onnx
from distillc.frontend.padding import Padded
from distillc.options import BundleOptions
from distillc.pipeline import Context
from distillc.preflight import accept, fit, images_or_none, read, tune_apart
from distillc.runtime.bundle import Bundle
from distillc.stages import WorkDir
from distillc.targets.base import Target
from distillc.workdir import full_disk

ONNX_NOTICE = (
    "an ONNX graph has no modules to replace: it is compiled as it is, nothing is distilled"
)

OF_CHECKPOINTS = ("arch", "arch_args", "weights_key", "specialise", "trust_pickle")
"""Options that mean nothing for an ONNX file."""


def convert_as_is(
    source: str | Path,
    target: str | Target = "snapdragon8elite",
    size: tuple[int, int] = (256, 256),
    task: str = "denoise:sigma=25",
    out: str | Path | None = None,
    budget: str | Budget = "quick",
    *,
    precision: str = "fp32",
    weights_beside: bool = False,
    onnx_scans: str = "fused",
    overwrite: bool = False,
    work_dir: str | Path = ".distillc-work",
    tune_minutes: float = 0,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | None = None,
    output: str | int | None = None,
    inputs: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    specialise: str | Path | None = None,
    trust_pickle: bool = False,
    sandbox: bool = True,
    dump_dir: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a checkpoint or an ONNX file, with or without attention, to a verified bundle.

    It is verified on photographs: against torch, or for an ONNX file against ONNX Runtime.

    Args:
        source: The file; see `distillc.load` for what it may be. An ONNX file takes one image,
            beside `inputs`, and returns one, H and W fixed or free; see `open_model`.

    The other arguments are the fields of `distillc.options.BundleOptions`, which says
    what each means.

    Raises:
        DistillcError: One of the family, each with its exit code; `out` is not touched.
    """
    options = BundleOptions(
        target=target,
        size=size,
        task=task,
        out=out,
        budget=budget,
        precision=precision,
        weights_beside=weights_beside,
        onnx_scans=onnx_scans,
        overwrite=overwrite,
        work_dir=work_dir,
        tune_minutes=tune_minutes,
        arch=arch,
        arch_args=arch_args,
        output=output,
        inputs=inputs,
        weights_key=weights_key,
        specialise=specialise,
        trust_pickle=trust_pickle,
        sandbox=sandbox,
        dump_dir=dump_dir,
        progress=progress,
    )
    return run_as_is(source, options)


convert_onnx = convert_as_is
"""Its name from when only ONNX files were compiled as they are."""


@full_disk()
def run_as_is(source: str | Path, options: BundleOptions) -> Bundle:
    """Compile a network as it is to a verified bundle; see `convert_as_is`."""
    onnx = is_onnx(source)
    given = [name for name in OF_CHECKPOINTS if getattr(options, name) not in (None, False)]
    if onnx and given:
        raise UsageError(
            f"{source} is an ONNX file, which holds its network",
            where=", ".join(given),
            hint="leave these options out",
        )
    place = accept(source, options)
    net = fit(read(source, options), options)
    images = images_or_none(net, options)
    original = None
    if onnx:
        # Here, for GraphSurgeon takes long to import.
        from distillc.frontend.onnx_graph.load import reference

        constants = read_inputs(options.inputs or {})
        runtime = reference(Path(source), options.output, constants)
        original = Padded(runtime, net.size, net.scale)

    ctx = Context(WorkDir(options.work_dir), progress=options.progress)
    records = None
    if options.tune_minutes:
        records = tune_apart([net], options, ctx).path
    return deliver(net, images, place, options, ctx, records=records, original=original)
