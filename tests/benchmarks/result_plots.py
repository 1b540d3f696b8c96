"""The pictures beside the result tables: loss against latency, and crops side by side."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distillc.budgets import get_budget
from distillc.data.images import open_data, open_test_set
from distillc.data.metrics import psnr
from distillc.frontend.load import load
from distillc.network import Network
from distillc.pipeline import Context, Pipeline
from distillc.search.evaluator import Evaluator
from distillc.search.space import search_space
from distillc.stages import WorkDir
from distillc.standard_passes import conversion_passes
from tests.benchmarks.hybrids import Case

RANDOM = 24
"""Random hybrids in the plot."""

IMAGES = (3, 11)
"""Test images that crops are shown of."""

EDGE = 144
"""Edge of a crop, pixels."""

Point = tuple[float, float]
"""Latency in per cent of the teacher's in the same run, and PSNR lost in dB."""


def random_points(case: Case, train: Path, work: Path) -> list[Point]:
    """Evaluate hybrids drawn at random from the surrogates of a conversion that is finished."""
    budget = get_budget("full")
    pipeline = Pipeline(conversion_passes(budget, train, case.task), stop_after="profile_blocks")
    net = pipeline.run(load(case.teacher).at((256, 256)), Context(WorkDir(work)))
    space = search_space(net, "latency")
    pairs = open_data(train, case.task).held_out(budget.search_images, budget.search_crop)
    evaluate = Evaluator(net, pairs)
    best = evaluate(space.decisions(space.keep))
    source = random.Random(0)
    points = []
    for _ in range(RANDOM):
        choice = tuple(source.randrange(len(options)) for options in space.options)
        share = 100 * space.cost(choice) / space.cost(space.keep)
        points.append((share, best - evaluate(space.decisions(choice))))
    return points


def plot_front(
    path: Path,
    search: Mapping[str, Any],
    drawn: Sequence[Point],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Draw the search's hybrids, random ones, and the healed ones on the test set, to a PNG.

    The search's costs and the bundles' latencies were measured at different times: each is set
    against the teacher's in the same run.
    """
    teacher_ms, teacher_db = search["teacher"]

    def losses(points: Sequence[Point]) -> tuple[list[float], list[float]]:
        shares = [100 * cost / teacher_ms for cost, _ in points]
        return shares, [teacher_db - value for _, value in points]

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*losses(search["points"]), s=12, color="#ced4da", label="evaluated by the search")
    axes.scatter(*zip(*drawn, strict=True), s=20, marker="x", color="#f08c00", label="random")
    axes.step(*losses(search["front"]), where="post", color="#0b7285", label="its Pareto front")
    cheapest = losses([min(search["front"])])
    axes.scatter(*cheapest, s=50, color="#0b7285", label="everything replaced")
    axes.scatter(100, 0, marker="s", s=60, color="#212529", label="teacher")
    healed = [(100 / row["speedup"], row["drop"]) for row in rows if "drop" in row]
    axes.scatter(
        *zip(*healed, strict=True),
        marker="*",
        s=190,
        color="#e03131",
        label="healed, test set",
    )
    axes.invert_yaxis()
    axes.set_xlabel("latency at 256x256, two threads, % of the teacher's")
    axes.set_ylabel("PSNR lost, dB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)


def plot_crops(path: Path, case: Case, networks: Mapping[str, Network], test: Path) -> None:
    """Draw crops of test images side by side: input, each network's output, clean."""
    pairs = open_test_set(test, case.task).test_images(max(IMAGES) + 1, 8)
    columns = len(networks) + 2
    figure = Figure(figsize=(1.9 * columns, 2.1 * len(IMAGES)), layout="constrained")
    for axes, index in zip(figure.subplots(len(IMAGES), columns), IMAGES, strict=True):
        degraded, clean = pairs[index]
        outputs = {"input": degraded}
        outputs |= {name: net.module(degraded) for name, net in networks.items()}
        outputs["clean"] = clean
        top, left = (side // 2 - EDGE // 2 for side in clean.shape[2:])
        for axis, (name, image) in zip(axes, outputs.items(), strict=True):
            crop = image[0, :, top : top + EDGE, left : left + EDGE].clamp(0, 1)
            axis.imshow(crop.permute(1, 2, 0).numpy())
            axis.set_title(
                name if name == "clean" else f"{name}\n{psnr(image, clean):.2f} dB", fontsize=8
            )
            axis.axis("off")
    figure.savefig(path, dpi=110)
