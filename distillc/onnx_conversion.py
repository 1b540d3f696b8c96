"""The road from an ONNX file to a verified bundle: nothing is distilled."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress

from distillc.budgets import Budget
from distillc.compilation import compile as compile_bundle
from distillc.frontend.load import load
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.padding import Padded
from distillc.pipeline import Context
from distillc.preflight import accept, fit, tune_apart
from distillc.report.html import write_report
from distillc.runtime.bundle import Bundle
from distillc.runtime.manifest import REPORT
from distillc.runtime.verify import verification_images, verify_bundle
from distillc.stages import WorkDir
from distillc.targets.base import Target
from distillc.workdir import full_disk

NOTICE = "an ONNX graph has no modules to replace: it is compiled as it is, nothing is distilled"


@full_disk()
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
    overwrite: bool = False,
    work_dir: str | Path = ".distillc-work",
    tune_minutes: float = 0,
    sandbox: bool = True,
    progress: Progress | None = None,
) -> Bundle:
    """Compile an ONNX file to a bundle, verified against ONNX Runtime on photographs.

    Args:
        path: The file: one float32 image (1, C, H, W) in, one out, H and W fixed or free.
        target: A target or its name.
        size: (H, W) in pixels that the bundle is built for.
        task: How the photographs are degraded, say `"denoise:sigma=25"`.
        out: The bundle's folder; `<file's stem>.distillc` by default.
        budget: Says on how many photographs it is verified.
        precision: What the bundle computes in; see `distillc.compile`.
        weights_beside: Whether its weights are in a file of their own.
        overwrite: Replace `out` if it exists.
        work_dir: Where the bundle is made, and tuning records are kept.
        tune_minutes: Search the schedules of the kernels for so long before they are compiled.
        sandbox: Read the file in a process of its own.
        progress: Rich display with a `detail` field.

    Raises:
        DistillcError: One of the family, each with its exit code; `out` is not touched.
    """
    work = WorkDir(work_dir)
    job = accept(
        path, target, task, budget, precision, out, overwrite, size, tune_minutes, [work.root]
    )
    net, photographs = fit(load(path, sandbox=sandbox), job, size)
    pairs = verification_images(photographs, size, net.scale, job.budget.verify_images)
    original = Padded(OnnxRuntime(Path(path)), net.size, net.scale)

    ctx = Context(work, progress=progress)
    records = None
    if tune_minutes:
        records = tune_apart([net], net.size, job, tune_minutes, ctx).path
    with (
        work.scratch() as scratch,
        ctx.task("compile and verify", 3) as shown,
    ):
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
        shown.update(1, "library built")
        metrics = {"verification": asdict(verify_bundle(bundle, pairs, original=original))}
        shown.update(2, "verified")
        write_report({**bundle.manifest, "metrics": metrics}, bundle.path / REPORT)
        bundle = bundle.annotate({"metrics": metrics}, [REPORT])
        bundle = bundle.save(job.out, overwrite=overwrite)
        shown.update(3, str(job.out))
    return bundle
