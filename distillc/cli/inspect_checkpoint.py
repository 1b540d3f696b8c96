"""`distillc inspect`: the blocks of a checkpoint and what they cost."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    with _no_collection():
        _inspect(checkpoint, size, loading, as_json)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Within it, Python does not look for cycles: a fifth of the time, and little stands in any."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _inspect(
    checkpoint: Path, size: tuple[int, int], loading: dict[str, Any], as_json: bool
) -> None:
    with suppress(ImportError):  # needed later, imported while the file's reader starts
        import torch.export._trace  # noqa: F401

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
