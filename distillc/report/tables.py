"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from distillc.network import KEEP, Network

if TYPE_CHECKING:  # other tables do not wait for the compiler
    from distillc.codegen.tuning.tuner import TuningResult
    from distillc.runtime.benchmark import Stats
    from distillc.runtime.verify import Verification


def millions(count: float) -> str:
    """Return a count in millions, or thousands when it is small."""
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def block_tree(net: Network) -> Tree:
    """Return the blocks of a network as a tree of module paths, with kind, shape and cost."""
    height, width = net.size
    total = sum(block.cost.macs for block in net.blocks)
    title = Text.assemble(
        (net.name, "bold"),
        f" {net.source.get('architecture', '')} at {height}x{width}: "
        f"{len(net.blocks)} blocks, {total / 1e9:.2f} GMACs in them",
    )
    root = Tree(title)
    branches: dict[str, Tree] = {"": root}
    for block in net.blocks:
        parent = block.name.rpartition(".")[0]
        if parent not in branches:
            branches[parent] = root.add(Text(parent, "cyan"))
        shape = "x".join(str(extent) for extent in block.shape[1:])
        line = Text()
        line.append(f"{block.name.rpartition('.')[2]:4}", style="bold")
        line.append(f"{block.kind:8}", style="magenta")
        line.append(f"{shape:14} {millions(block.cost.params):>8} parameters ")
        line.append(f"{block.cost.macs / 1e6:9.1f} MMACs ({block.cost.macs / max(1, total):4.0%})")
        branches[parent].add(line)
    return root


SLOWED = 1.1
"""Slowdown during the runs that is worth a word."""


def stats_table(stats: Stats) -> Table:
    """Return latency statistics."""
    table = Table("device", "threads", "median", "10 %", "90 %", "runs", "peak memory")
    table.add_row(
        stats.device,
        str(stats.threads),
        *(f"{each:.2f} ms" for each in (stats.median_ms, stats.p10_ms, stats.p90_ms)),
        str(stats.runs),
        f"{stats.peak_bytes / 2**20:.0f} MiB",
    )
    if stats.slowdown > SLOWED:
        table.caption = (
            f"The last third of the runs took {100 * (stats.slowdown - 1):.0f} % longer than the "
            "first: the device slowed down."
        )
    return table


def tuning_table(result: TuningResult) -> Table:
    """Return the kernels that were searched, and what the network gains."""
    table = Table("kernel", "best", "default", "cost", "gain")
    for record in result.records:
        knobs = ", ".join(f"{name} {value}" for name, value in record.knobs.items())
        table.add_row(
            record.rule.removeprefix("schedule_"),
            knobs if record.cost < record.default else "the default",
            f"{record.default:.4g} {record.unit}",
            f"{record.cost:.4g} {record.unit}",
            f"{record.default / record.cost:.2f}",
        )
    lines = [f"{result.known} kernels were known, no time was left for {result.left}"]
    if result.before:
        before, after = (f"{each:.4g} {result.unit}" for each in (result.before, result.after))
        lines.append(f"kernels that were not known: {before} with defaults, {after} tuned")
    table.caption = "\n".join([*lines, f"records: {result.path}"])
    return table


def verification_table(result: Verification, quality: Mapping[str, Any] | None = None) -> Table:
    """Return what a verification found.

    Args:
        result: The verification.
        quality: The manifest's `metrics.quality`: teacher and hybrid on the conversion's images.
    """
    table = Table("check", "result", title="verified", title_style="bold green")
    table.add_row("ran on", result.device)
    table.add_row("precision", result.precision)
    table.add_row("real images", str(result.images))
    table.add_row(f"largest difference from {result.against}", f"{result.max_error:.2e}")
    table.add_row(f"PSNR to {result.against}", f"{result.psnr_to_torch:.1f} dB")
    table.add_row("ONNX Runtime's difference", f"{result.onnx_error:.2e}")
    if result.psnr is not None and result.ssim is not None:
        table.add_row("PSNR to the clean images", f"{result.psnr:.2f} dB")
        table.add_row("SSIM to the clean images", f"{result.ssim:.4f}")
    if result.psnr_cost is not None and result.precision != "fp32":
        table.add_row(f"PSNR that {result.precision} costs", f"{result.psnr_cost:z.4f} dB")
    if quality:
        table.add_section()
        for who in ("teacher", "hybrid"):  # on the same images, so that the two can be compared
            psnr, ssim = quality[who]["psnr"], quality[who]["ssim"]
            name = f"{who} on the conversion's {quality['images']} images"
            table.add_row(name, f"{psnr:.2f} dB, SSIM {ssim:.4f}")
    return table


def quality_table(quality: Mapping[str, Any], notice: str | None = None) -> Table:
    """Return what a hybrid loses on images.

    Args:
        quality: The values of a `distillc.runtime.quality.Quality`.
        notice: Why the teacher is missing.
    """
    height, width = quality["window"]
    title = f"quality on {quality['images']} {quality['origin']}"
    further = quality["hybrid"].get("further", {})
    table = Table("", "PSNR", "SSIM", *further, title=title)
    for who in ("teacher", "hybrid"):
        if quality[who]:
            psnr, ssim = quality[who]["psnr"], quality[who]["ssim"]
            others = [f"{quality[who]['further'][name]:.4g}" for name in further]
            table.add_row(who, f"{psnr:.3f} dB", f"{ssim:.4f}", *others)
    table.add_section()
    for name, value in losses(quality).items():
        table.add_row(name, value)
    lines = [f"Up to four windows of {height}x{width} an image; {quality['ran']} computed them."]
    table.caption = "\n".join([*lines, *filter(None, [notice])])
    return table


def losses(quality: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what a hybrid loses against its teacher, line by line; nothing without a teacher.

    Args:
        quality: The values of a `distillc.runtime.quality.Quality`.
    """
    if not quality or quality["drop_db"] is None:
        return {}
    lines = {"mean loss": f"{quality['drop_db']:.3f} dB"}
    if quality["interval_db"]:
        low, high = quality["interval_db"]
        from distillc.runtime.quality import CONFIDENCE  # which reads images: not for all tables

        lines[f"{CONFIDENCE:.0%} interval of the mean"] = f"{low:.3f} to {high:.3f} dB"
    lines["largest loss"] = f"{quality['worst_db']:.3f} dB, {quality['worst_image']}"
    return lines


def summary(manifest: Mapping[str, Any], path: Path) -> RenderableType:
    """Return the result of a conversion."""
    metrics = manifest["metrics"]
    quality, latency = metrics["quality"], metrics["latency"]
    place = "here" if latency["device"] == "host" else f"on {latency['device']}"
    check = metrics["verification"]
    table = Table("", "teacher", "hybrid", "", title=Text(str(path), "bold"))
    table.add_row(
        "PSNR",
        f"{quality['teacher']['psnr']:.2f} dB",
        f"{quality['hybrid']['psnr']:.2f} dB",
        f"{-quality['drop_db']:+.3f} dB",
    )
    table.add_row(
        "SSIM", f"{quality['teacher']['ssim']:.4f}", f"{quality['hybrid']['ssim']:.4f}", ""
    )
    for name, value in quality["hybrid"].get("further", {}).items():
        table.add_row(name, f"{quality['teacher']['further'][name]:.4g}", f"{value:.4g}", "")
    table.add_row(
        f"latency {place}, {latency['threads']} threads",
        f"{latency['teacher_ms']:.1f} ms",
        f"{latency['hybrid_ms']:.1f} ms",
        f"{latency['speedup']:.2f} times as fast",
    )
    table.add_row(
        "parameters",
        millions(manifest["params"]["teacher"]),
        millions(manifest["params"]["hybrid"]),
    )
    unseen = Text(
        f"quality on {quality['images']} {quality['origin']} that neither training nor the search "
        "nor healing saw: "
        + ", ".join(f"{name} {value}" for name, value in losses(quality).items())
    )
    precision, cost = manifest.get("precision", "fp32"), check.get("psnr_cost")
    costs = f"costs {cost:z.4f} dB" if precision != "fp32" and cost is not None else ""
    table.add_row("precision", "", precision, costs)
    blocks = Table("block", "kind", "MACs", "becomes", box=None, padding=(0, 2))
    for block in manifest["blocks"]:
        decision = manifest["decisions"].get(block["name"], KEEP)
        style = "dim" if decision == KEEP else "green"
        blocks.add_row(block["name"], block["kind"], millions(block["macs"]), decision, style=style)
    verdict = Text.assemble(
        ("verified ", "bold green"),
        f"on {check['device']}: largest difference from torch {check['max_error']:.1e} "
        f"over {check['images']} image{'' if check['images'] == 1 else 's'}",
    )
    parts: list[RenderableType] = [blocks, table, unseen, verdict]
    if not latency["replaced"]:
        parts.append(
            Text(
                "every block was kept: no surrogate lost little enough at this budget; try a "
                "larger --budget, or ask for a --min-speedup",
                "bold yellow",
            )
        )
    elif latency["speedup"] < 1:
        parts.append(Text(f"the hybrid is slower than its teacher {place}", "bold red"))
    return Group(*parts)
