"""`distillc inspect`: the blocks of a checkpoint and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distillc.cli.common import PATH, SIZE, echo_json, json_option, load_options
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc inspect restormer.pth
  distillc inspect restormer.pth --size 720x1280 --json
  distillc inspect weights.pth --arch mynet.models:Net --arch-args '{"dim": 32}'"""
)
@click.argument("checkpoint", type=PATH)
@click.option("--size", type=SIZE, default="256x256", show_default=True, help="Image size.")
@load_options
@json_option
def inspect(
    checkpoint: Path,
    size: tuple[int, int],
    loading: dict[str, Any],
    as_json: bool,
) -> None:
    """Show the attention blocks of CHECKPOINT: kind, shape, parameters, MACs."""
    from distillc.frontend.load import load
    from distillc.passes import FindAttention, Trace
    from distillc.pipeline import Pipeline, dump_data
    from distillc.report.tables import block_tree

    net = load(checkpoint, size=size, **loading).at(size)
    net = Pipeline([Trace(), FindAttention()]).run(net)
    if as_json:
        echo_json({**dump_data(net), "source": dict(net.source), "scale": net.scale})
        return
    Terminal().print(block_tree(net))
