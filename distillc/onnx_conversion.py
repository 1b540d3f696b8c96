"""From an ONNX file to a verified bundle: nothing is distilled."""

from __future__ import annotations

from pathlib import Path

from rich.progress import Progress

from distillc.budgets import Budget
from distillc.delivery import deliver
from distillc.frontend.load import load
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.padding import Padded
from distillc.options import BundleOptions
from distillc.pipeline import Context
from distillc.preflight import accept, fit, tune_apart
from distillc.runtime.bundle import Bundle
from distillc.stages import WorkDir
from distillc.targets.base import Target
from distillc.workdir import full_disk

NOTICE = "an ONNX graph has no modules to replace: it is compiled as it is, nothing is distilled"


def convert_onnx(
    path: str | Path,
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
    sandbox: bool = True,
    dump_dir: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile an ONNX file to a bundle, verified against ONNX Runtime on photographs.

    Args:
        path: The file: one float32 image (1, C, H, W) in, one out, H and W fixed or free.

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
        sandbox=sandbox,
        dump_dir=dump_dir,
        progress=progress,
    )
    return run_onnx_conversion(path, options)


@full_disk()
def run_onnx_conversion(path: str | Path, options: BundleOptions) -> Bundle:
    """Compile an ONNX file to a verified bundle; see `convert_onnx`."""
    place = accept(path, options)
    net, photographs = fit(load(path, sandbox=options.sandbox), options)
    original = Padded(OnnxRuntime(Path(path)), net.size, net.scale)

    ctx = Context(WorkDir(options.work_dir), progress=options.progress)
    records = None
    if options.tune_minutes:
        records = tune_apart([net], options, ctx).path
    return deliver(net, photographs, place, options, ctx, records=records, original=original)
