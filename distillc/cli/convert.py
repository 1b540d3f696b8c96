"""`distillc convert`: a checkpoint in, a verified bundle out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from distillc.budgets import BUDGETS
from distillc.checks import MINUTES, NOT_NEGATIVE, POSITIVE, SEEDS
from distillc.cli.common import (
    DEVICE,
    PATH,
    REPLACEMENT,
    SIZE,
    TARGET,
    TASK,
    TRAINING_DEVICE,
    echo_json,
    json_option,
    load_options,
    progress_display,
    real,
    whole,
)
from distillc.cli.terminal import Terminal
from distillc.errors import UsageError


def _refuse_device(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Answer the old name of `--train-on`, which is another thing in every other command."""
    if value is not None:
        raise UsageError(
            "convert has no --device: what trains is --train-on",
            hint=f"write --train-on {value}; --measure-on says where latency is measured",
        )


@click.command(
    epilog="""\b
Examples:
  distillc convert restormer.pth --target snapdragon8elite
  distillc convert restormer.pth --task deblur --data photos/ --max-drop 0.2
  distillc convert restormer.pth --target host --tune 30
  distillc convert restormer.pth --min-speedup 2 --keep refinement.0 --overwrite
  distillc convert restormer.pth --budget smoke --out ci.distillc --json
  distillc convert nafnet.pth --no-distill
  distillc convert restormer.onnx --target snapdragon8elite --size 256"""
)
@click.argument("checkpoint", type=PATH)
@click.option(
    "--target",
    type=TARGET,
    default="snapdragon8elite",
    show_default=True,
    help="What to build for.",
)
@click.option("--size", type=SIZE, default="256x256", show_default=True, help="Image size.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    help="What the bundle computes in: fp32, or fp16 where that loses little; fp16-weights stores "
    "weights as float16 and computes in float32.",
)
@click.option(
    "--weights-beside", is_flag=True, help="Put the weights into a file beside the library."
)
@click.option(
    "--onnx-scans",
    default="fused",
    show_default=True,
    help="How scans leave in model.onnx: fused, as ONNX Runtime's LinearAttention, or standard, as "
    "loops that any runtime knows.",
)
@click.option(
    "--task",
    type=TASK,
    default="denoise:sigma=25",
    show_default=True,
    help="How clean images are degraded: denoise:sigma=S, derain, deblur, sr:scale=S, or what "
    "`distillc tasks` lists.",
)
@click.option(
    "--data",
    type=PATH,
    help="Folder of clean images, or of input/ and target/ pairs, three at least: pictures or .npy "
    "arrays. Default: scikit-image's and matplotlib's photographs.",
)
@click.option("--out", type=PATH, help="Bundle; default NAME.distillc.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle if it exists.")
@click.option(
    "--budget",
    default="quick",
    show_default=True,
    help=f"How much work: {', '.join(BUDGETS)}.",
)
@click.option(
    "--no-distill",
    is_flag=True,
    help="Replace nothing: compile any network as it is, with attention or without.",
)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="SPEC",
    help="Surrogate to try: mamba:state=4 for whole blocks, mamba@attention for only the "
    "attention; repeatable. Default: the budget's.",
)
@click.option(
    "--objective",
    type=click.Choice(["latency", "macs", "transformers"]),
    help="The search's cost; the budget's by default.",
)
@click.option(
    "--max-drop",
    type=real("DB", NOT_NEGATIVE),
    help="Largest PSNR loss allowed: the mean over images that neither training nor the search nor "
    "healing saw.",
)
@click.option(
    "--search-drop",
    type=real("DB", NOT_NEGATIVE),
    help="Largest loss that the search accepts on its own images, before healing; --max-drop by "
    "default.",
)
@click.option("--min-speedup", type=real("X", POSITIVE), help="Smallest speed-up allowed.")
@click.option("--max-latency-ms", type=real("MS", POSITIVE), help="Largest latency allowed.")
@click.option(
    "--measure-on",
    type=DEVICE,
    default="host",
    show_default=True,
    help="Measures latency for search and limits: host, ssh:user@host[:port] or adb[:SERIAL].",
)
@click.option("--keep", multiple=True, metavar="BLOCK", help="Block that stays; repeatable.")
@click.option(
    "--replace",
    type=REPLACEMENT,
    multiple=True,
    help="Block and the surrogate that replaces it, one of the families tried; repeatable.",
)
@click.option(
    "--seed", type=whole(SEEDS), default=0, show_default=True, help="Seed of everything random."
)
@click.option(
    "--work-dir",
    type=PATH,
    default=Path(".distillc-work"),
    show_default=True,
    help="Where finished stages are kept; the same command goes on from there.",
)
@click.option(
    "--tune",
    "tune_minutes",
    type=real("MINUTES", MINUTES),
    default=0.0,
    help="Search the schedules of the kernels for so long before the last build.",
)
@click.option(
    "--train-on",
    type=TRAINING_DEVICE,
    default="cpu",
    show_default=True,
    help="What trains the surrogates: cpu or cuda.",
)
@click.option(
    "--cluster",
    metavar="CLUSTER",
    help="Train on a Ray cluster: local:N, auto or ray://HOST:PORT. The result is the same.",
)
@click.option(
    "--device",
    hidden=True,
    expose_value=False,
    is_eager=True,
    callback=_refuse_device,
)
@click.option(
    "--dump-dir",
    type=PATH,
    help="Write the state after each pass and stage, every kernel, the plan.",
)
@click.option("--print-after", metavar="NAME", help="Print the state after this pass or stage.")
@click.option(
    "--stop-after", metavar="NAME", help="Stop after this pass or stage; writes no bundle."
)
@click.option("--verify-each", is_flag=True, help="Compare the numbers around every pass.")
@load_options
@json_option
@click.pass_context
def convert(
    context: click.Context,
    checkpoint: Path,
    no_distill: bool,
    loading: dict[str, Any],
    as_json: bool,
    **given: Any,
) -> None:
    """Convert CHECKPOINT to a bundle that runs fast on a phone's CPU.

    Attention blocks are replaced by small state-space surrogates where that pays, the hybrid is
    compiled, run on real images, compared with torch, and only then gets its name. With
    --no-distill any network is compiled as it is. So is an ONNX file, which is compared with ONNX
    Runtime.
    """
    from distillc.frontend.formats import is_onnx

    if is_onnx(checkpoint) or no_distill:
        _refuse_options(context, is_onnx(checkpoint))
        _convert_as_is(checkpoint, as_json, {**given, **loading})
        return
    from distillc.conversion import run_conversion
    from distillc.limits import Limits
    from distillc.options import ConversionOptions
    from distillc.pipeline import dump_data, dump_text
    from distillc.report.tables import summary

    asked = {each.name: given.pop(each.name) for each in fields(Limits)}
    limits = Limits(**{**asked, "replace": dict(asked["replace"])})
    with progress_display(quiet=as_json) as progress:
        options = ConversionOptions(**given, **loading, limits=limits, progress=progress)
        result = run_conversion(checkpoint, options)
    if result.bundle is None:
        click.echo(dump_text(result.network)) if not as_json else echo_json(
            dump_data(result.network)
        )
        return
    if as_json:
        echo_json({"bundle": str(result.bundle.path), **result.bundle.manifest})
        return
    Terminal().print(summary(result.bundle.manifest, result.bundle.path))


def _refuse_options(context: click.Context, onnx: bool) -> None:
    """Refuse what means nothing where nothing is distilled, all of it at once."""
    from distillc.as_is import OF_CHECKPOINTS, ONNX_NOTICE
    from distillc.options import BundleOptions

    known = {each.name for each in fields(BundleOptions)} | {"no_sandbox", "no_distill", "as_json"}
    if onnx:
        known -= set(OF_CHECKPOINTS)
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and parameter.name not in known
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if given and onnx:
        raise UsageError(
            ONNX_NOTICE,
            where=", ".join(given),
            hint="leave these options out, or convert the checkpoint that the file was exported "
            "from",
        )
    if given:
        raise UsageError(
            "with --no-distill the network is compiled as it is, nothing is distilled",
            where=", ".join(given),
            hint="leave these options out, or leave out --no-distill",
        )


def _convert_as_is(path: Path, as_json: bool, given: Mapping[str, Any]) -> None:
    from distillc.as_is import ONNX_NOTICE, run_as_is
    from distillc.frontend.formats import is_onnx
    from distillc.options import BundleOptions
    from distillc.report.tables import verification_table
    from distillc.runtime.verify import Verification

    if is_onnx(path) and not as_json:
        Terminal(stderr=True).print(ONNX_NOTICE, style="yellow", soft_wrap=True)
    known = {each.name for each in fields(BundleOptions)} - {"progress"}
    with progress_display(quiet=as_json) as progress:
        options = BundleOptions(**{name: given[name] for name in known}, progress=progress)
        bundle = run_as_is(path, options)
    if as_json:
        echo_json({"bundle": str(bundle.path), **bundle.manifest})
        return
    Terminal().print(verification_table(Verification(**bundle.manifest["metrics"]["verification"])))
    Terminal().print(str(bundle.path), soft_wrap=True)
