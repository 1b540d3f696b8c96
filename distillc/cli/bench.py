"""`distillc bench`: how fast a bundle runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from distillc.checks import RUNS, THREADS
from distillc.cli.common import DEVICE, DEVICES, PATH, echo_json, json_option, whole
from distillc.cli.terminal import Terminal


@click.command(
    epilog="""\b
Examples:
  distillc bench restormer.distillc --threads 2
  distillc bench restormer.distillc --device adb
  distillc bench restormer.distillc --runs 50 --json"""
)
@click.argument("bundle", type=PATH)
@click.option(
    "--device", type=DEVICE, default="host", show_default=True, help=f"Where to run it: {DEVICES}."
)
@click.option("--threads", type=whole(THREADS), default=2, show_default=True, help="Threads.")
@click.option(
    "--runs", type=whole(RUNS), default=20, show_default=True, help="Timed runs, after a warm-up."
)
@json_option
def bench(bundle: Path, device: str, threads: int, runs: int, as_json: bool) -> None:
    """Time BUNDLE: median, 10th and 90th percentile, peak memory."""
    from distillc.report.tables import stats_table
    from distillc.runtime.bundle import Bundle

    stats = Bundle.open(bundle).benchmark(device=device, threads=threads, runs=runs)
    if as_json:
        echo_json(asdict(stats))
        return
    Terminal().print(stats_table(stats))
