"""How every conversion ends: compile, verify, report, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from distillc.compilation import compile as compile_bundle
from distillc.data.images import RestorationData
from distillc.network import Network
from distillc.options import BundleOptions
from distillc.passes.plot_front import plot_front
from distillc.pipeline import Context
from distillc.report.html import write_report
from distillc.runtime.bundle import Bundle
from distillc.runtime.manifest import PLOT, REPORT
from distillc.runtime.verify import verification_images, verify_bundle


def deliver(
    net: Network,
    images: RestorationData | None,
    place: Path,
    options: BundleOptions,
    ctx: Context,
    *,
    records: Path | None = None,
    original: nn.Module | None = None,
    entries: Mapping[str, Any] | None = None,
    pictures: Sequence[Mapping[str, Tensor]] = (),
) -> Bundle:
    """Compile a network to a bundle that gets its name once it is verified.

    Args:
        net: The network, with its decisions applied.
        images: What the bundle is verified on; None for random numbers.
        place: The folder that the bundle gets.
        options: What is asked of it.
        ctx: Its work directory is where the bundle is made, and its display shows the steps.
        records: A file of tuning records beside the shipped and the user's own.
        original: What the bundle is compared with; see `verify_bundle`. Torch by default.
        entries: What its manifest says beside that; a search among its `metrics` is plotted.
        pictures: Rows of crops that the report shows; see `write_report`.

    Raises:
        Stopped: `options.dumps` says so.
        DistillcError: Compiling, verifying or saving fails; `place` is not touched.
    """
    assert ctx.work is not None
    count = options.effort.verify_images
    pairs = verification_images(images, options.size, net.scale, count) if images else []
    with ctx.work.scratch() as scratch, ctx.progress_line("compile and verify", 3) as shown:
        bundle = compile_bundle(
            net,
            options.target,
            options.size,
            precision=options.precision,
            weights_beside=options.weights_beside,
            onnx_scans=options.onnx_scans,
            directory=scratch / "bundle",
            reference=pairs[0][0] if pairs else None,
            manifest={"task": str(images.task)} if images else {},
            records=records,
            dumps=options.dumps,
        )
        shown.update(1, "library built")
        verification = verify_bundle(bundle, pairs, original=original)
        shown.update(2, "verified")
        facts = dict(entries or {})
        facts["metrics"] = {**facts.get("metrics", {}), "verification": asdict(verification)}
        files, plot = [REPORT], None
        if "search" in facts["metrics"]:
            files, plot = [PLOT, REPORT], bundle.path / PLOT
            plot_front(plot, facts["metrics"]["search"])
        write_report({**bundle.manifest, **facts}, bundle.path / REPORT, plot, pictures)
        bundle = bundle.annotate(facts, files).save(place, overwrite=options.overwrite)
        shown.update(3, str(place))
    return bundle
