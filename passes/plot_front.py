"""The search's plot: PSNR against cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distillc.search.space import OBJECTIVES
from distillc.workdir import write_whole


def plot_front(path: Path, search: Mapping[str, Any]) -> None:
    """Draw every hybrid, the Pareto set, the teacher and the chosen one to a PNG.

    Args:
        path: The file.
        search: `objective`; `points` and `front`, lists of (cost, PSNR in dB); `teacher` and,
            once it is known, `chosen`, each one such pair.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    costs, psnrs = zip(*search["points"], strict=True)
    axes.scatter(costs, psnrs, s=14, color="#9aa5b1", label=f"{len(costs)} hybrids")
    costs, psnrs = zip(*search["front"], strict=True)
    axes.step(
        costs,
        psnrs,
        where="post",
        marker="o",
        markersize=4,
        color="#0b7285",
        label="Pareto set",
    )
    cost, psnr = search["teacher"]
    axes.scatter(cost, psnr, marker="s", s=60, color="#212529", label="teacher")
    if "chosen" in search:
        cost, psnr = search["chosen"]
        axes.scatter(cost, psnr, marker="*", s=190, color="#e8590c", zorder=5, label="chosen")
    axes.set_xlabel(OBJECTIVES[search["objective"]])
    axes.set_ylabel("PSNR on held-out images, dB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="best")
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))
