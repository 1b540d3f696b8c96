"""The tables say what they should, at any width and with odd names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from distillc.network import Cost
from distillc.report.tables import (
    block_tree,
    millions,
    quality_table,
    stats_table,
    summary,
    verification_table,
)
from distillc.runtime.bundle import Stats
from distillc.runtime.verify import Verification
from tests.passes.toy import toy_network

from .test_html import FULL

MANIFEST: dict[str, Any] = {**FULL, "params": {"teacher": 1_100_000, "hybrid": 64_000}}


def show(what: RenderableType, width: int = 160) -> str:
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 k"), (950, "0.9 k"), (31_300, "31.3 k"), (999_999, "1000.0 k"), (1e6, "1.00 M")],
)
def test_millions(count: float, text: str) -> None:
    assert millions(count) == text


def test_tree_of_blocks() -> None:
    net = toy_network()
    blocks = tuple(
        type(each)(each.name, each.attention, each.kind, each.shape, each.shape, cost, cost)
        for each, cost in zip(net.blocks, (Cost(2000, 10**6), Cost(4000, 3 * 10**6)), strict=True)
    )
    text = show(block_tree(net.with_(blocks=blocks, name="toy")))
    assert "toy" in text
    assert "2 blocks, 0.00 GMACs in them" in text
    assert text.count("blocks\n") == 1 or "blocks" in text
    assert "25%" in text
    assert "75%" in text
    assert "6x16x16" in text


def test_tree_takes_any_name_and_no_costs() -> None:
    text = show(block_tree(toy_network().with_(name="net[/x] [red]v2[/]")))
    assert "net[/x] [red]v2[/]" in text
    assert "0 blocks" in show(block_tree(toy_network().with_(blocks=())))


def test_statistics() -> None:
    stats = Stats(12.345, 11.0, 14.0, 50 * 2**20, 20, 2, "host", 1.05)
    text = show(stats_table(stats))
    for word in ("12.35 ms" if "12.35" in text else "12.34 ms", "11.00 ms", "50 MiB", "host"):
        assert word in text
    assert "slowed down" not in text
    assert "20 % longer" in show(stats_table(replace(stats, slowdown=1.2)))


def test_verification() -> None:
    found = Verification("emulator", 2, 3e-7, 146.4, 2e-7, 31.42, 0.88)
    text = show(verification_table(found))
    for word in ("verified", "emulator", "3.00e-07", "146.4 dB", "31.42 dB", "0.8800"):
        assert word in text
    without = show(verification_table(Verification("host", 0, 3e-7, 146.4, 2e-7, None, None)))
    assert "clean" not in without
    assert "teacher" not in without


def test_what_half_precision_costs_is_said() -> None:
    found = Verification("emulator", 2, 2e-3, 67.6, 2e-7, 31.42, 0.88, "fp16", 0.00067)
    assert re.search(r"PSNR that fp16 costs +│ 0\.0007 dB", show(verification_table(found)))
    assert "costs" not in show(verification_table(replace(found, psnr_cost=None)))
    single = show(verification_table(replace(found, precision="fp32", psnr_cost=1e-7)))
    assert "costs" not in single
    assert re.search(r"precision +│ fp32", single)
    check = {**FULL["metrics"]["verification"], "precision": "fp16", "psnr_cost": 0.00067}
    metrics = {**FULL["metrics"], "verification": check}
    text = show(summary({**MANIFEST, "precision": "fp16", "metrics": metrics}, Path("x")))
    assert re.search(r"precision +│ +│ fp16 +│ costs 0\.0007 dB", text)
    assert "costs" not in show(summary(MANIFEST, Path("x")))


def test_verification_shows_the_teacher_beside_the_hybrid() -> None:
    found = Verification("emulator", 2, 3e-7, 146.4, 2e-7, 31.42, 0.88)
    quality = FULL["metrics"]["quality"]
    text = show(verification_table(found, quality))
    assert f"teacher on the conversion's {quality['images']} images" in text
    assert "31.50 dB, SSIM 0.8900" in text
    assert "31.40 dB, SSIM 0.8800" in text


def test_quality_on_the_users_images() -> None:
    quality = FULL["metrics"]["quality"]
    text = " ".join(show(quality_table(quality)).split())
    for words in (
        "quality on 4 images of photos",
        "31.500 dB",
        "0.8800",
        "0.050 to 0.150 dB",
        "0.175 dB, cat.png",
        "windows of 64x96 an image; torch computed them",
        "edges",
        "0.0375",
    ):
        assert words in text
    of_one = show(quality_table({**quality, "interval_db": None}))
    assert "interval" not in of_one
    alone = {**quality, "teacher": None, "drop_db": None, "interval_db": None}
    text = " ".join(show(quality_table(alone, "the hybrid is measured alone: no file")).split())
    assert "teacher" not in text
    assert "loss" not in text
    assert "31.400 dB" in text
    assert "the hybrid is measured alone: no file" in text


def test_summary_says_on_what_the_quality_was_measured() -> None:
    text = " ".join(show(summary(MANIFEST, Path("x"))).split())
    assert "quality on 4 images of photos that neither training nor the search nor healing" in text
    assert "mean loss 0.100 dB, 95% interval of the mean 0.050 to 0.150 dB, largest" in text


def test_summary() -> None:
    text = show(summary(MANIFEST, Path("out/restormer.distillc")))
    for word in (
        "out/restormer.distillc",
        "31.50 dB",
        "31.40 dB",
        "-0.100 dB",
        "2.00 times as fast",
        "1.10 M",
        "64.0 k",
        "mamba:state=2",
        "keep",
        "verified on emulator: largest difference from torch 3.0e-07 over 2 images",
    ):
        assert word in text
    assert "slower" not in text


def test_slower_hybrid_is_said() -> None:
    latency = {**FULL["metrics"]["latency"], "speedup": 0.8}
    manifest = {**MANIFEST, "metrics": {**FULL["metrics"], "latency": latency}}
    assert "slower than its teacher" in show(summary(manifest, Path("x")))


def test_a_hybrid_that_replaces_nothing_is_said() -> None:
    latency = {**FULL["metrics"]["latency"], "speedup": 1.0, "replaced": 0}
    manifest = {**MANIFEST, "metrics": {**FULL["metrics"], "latency": latency}}
    assert "every block was kept" in show(summary(manifest, Path("x")))


def test_summary_takes_any_path() -> None:
    assert "odd [/] name" in show(summary(MANIFEST, Path("odd [/] name")))


def test_narrow_terminal() -> None:
    lines = show(summary(MANIFEST, Path("x")), width=60).splitlines()
    assert all(len(line) <= 60 for line in lines)
