"""The road from an ONNX file to a verified bundle: nothing is distilled."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.progress import Progress

from distillc.budgets import Budget, get_budget
from distillc.compilation import compile as compile_bundle
from distillc.data.images import open_data
from distillc.data.tasks import check_scale, parse_task
from distillc.errors import StorageError
from distillc.frontend.load import load
from distillc.frontend.onnx_graph.runtime import OnnxRuntime
from distillc.frontend.padding import Padded
from distillc.pipeline import Context
from distillc.report.html import write_report
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices import get_device
from distillc.runtime.precision import get_precision
from distillc.runtime.verify import verification_images, verify_bundle
from distillc.targets.base import Target, get_target
from distillc.tuning import tune
from distillc.workdir import WorkDir

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
    overwrite: bool = False,
    work_dir: str | Path = ".distillc-work",
    tune_minutes: float = 0,
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
        precision: What the bundle computes in, `"fp32"` or `"fp16"`.
        overwrite: Replace `out` if it exists.
        work_dir: Where the bundle is made, and tuning records are kept.
        tune_minutes: Search the schedules of the kernels for so long before they are compiled.
        progress: Rich display with a `detail` field.

    Raises:
        DistillcError: One of the family, each with its exit code; `out` is not touched.
    """
    effort, chosen, parsed = get_budget(budget), get_target(target), parse_task(task)
    get_precision(precision)
    place = Path(out) if out else Path(f"{Path(path).stem}.distillc")
    if place.exists() and not overwrite:
        raise StorageError(
            "the bundle exists already", where=str(place), hint="choose --out, or add --overwrite"
        )
    net = load(path)
    net = net.at(net.fitting(size))
    check_scale(parsed, net.scale)
    get_device(chosen.devices[0]).launcher(2)  # verification will need it
    photographs = open_data(None, parsed, net.in_channels)
    pairs = verification_images(photographs, size, net.scale, effort.verify_images)
    original = Padded(OnnxRuntime(Path(path)), net.size, net.scale)

    work = WorkDir(work_dir)
    records = None
    if tune_minutes:
        stage = work.stage("tune", {"target": chosen.name, "cpu": chosen.cpu})
        records = stage / "records.jsonl"
        tune(
            [net],
            chosen,
            [net.size],
            tune_minutes,
            precision=precision,
            records=records,
            progress=progress,
        )
    work.root.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="bundle-", dir=work.root) as scratch,
        Context(work, progress=progress).task("compile and verify", 3) as shown,
    ):
        bundle = compile_bundle(
            net,
            chosen,
            size,
            precision=precision,
            directory=Path(scratch) / "bundle",
            reference=pairs[0][0],
            manifest={"task": str(parsed)},
            records=records,
        )
        shown.update(1, "library built")
        metrics = {"verification": asdict(verify_bundle(bundle, pairs, original=original))}
        shown.update(2, "verified")
        write_report({**bundle.manifest, "metrics": metrics}, bundle.path / "report.html")
        bundle = bundle.annotate({"metrics": metrics}).save(place, overwrite=overwrite)
        shown.update(3, str(place))
    return bundle
