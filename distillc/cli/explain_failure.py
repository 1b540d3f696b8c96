"""`distillc explain-failure`: which module makes compiled numbers differ from torch's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from distillc.checks import check_writable
from distillc.cli.common import PATH, SIZE, TARGET, echo_json, json_option, load_options
from distillc.cli.terminal import Terminal


@click.command(
    name="explain-failure",
    epilog="""\b
Examples:
  distillc explain-failure restormer.pth --target host --size 64
  distillc explain-failure restormer.distillc/hybrid.pt2 --size 256""",
)
@click.argument("checkpoint", type=PATH)
@click.option(
    "--target", type=TARGET, default="host", show_default=True, help="What to compile for."
)
@click.option("--size", type=SIZE, default="64x64", show_default=True, help="Image size.")
@click.option(
    "--out",
    type=PATH,
    default="reproduction",
    show_default=True,
    help="Folder of the reproduction.",
)
@click.option("--dump-dir", type=PATH, help="Write each module after each stage.")
@load_options
@json_option
def explain_failure(
    checkpoint: Path,
    target: str,
    size: tuple[int, int],
    out: Path,
    dump_dir: Path | None,
    loading: dict[str, Any],
    as_json: bool,
) -> None:
    """Find the smallest module of CHECKPOINT whose compiled code differs from torch.

    Compiles the network, then the modules inside, and leaves a script that shows the difference
    again. The network of a bundle is its hybrid.pt2.
    """
    from distillc.bisection import bisect
    from distillc.frontend.load import load

    check_writable(out / "reproduce.py")
    if dump_dir:
        check_writable(dump_dir / "network")
    net = load(checkpoint, size=size, **loading).at(size)
    culprit = bisect(net, out, target, dump_dir=dump_dir)
    if as_json:
        facts = {**asdict(culprit), "reproduction": str(out)} if culprit else None
        echo_json({"culprit": facts})
        return
    console = Terminal()
    if not culprit:
        console.print(f"compiled for {target}, {net.name} agrees with torch")
        return
    console.print(f"the network differs from torch by {culprit.whole_error:.2e}")
    place = culprit.path or "the network itself"
    console.print(f"smallest module: {place} ({culprit.kind}), input {culprit.shape}")
    console.print(f"it differs by {culprit.error:.2e} when run by itself; to see it again:")
    console.print(f"  python {out / 'reproduce.py'}")
