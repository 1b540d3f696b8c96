"""write_report: one file without links, names escaped, absent sections left out."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distillc.report.html import write_report

LEAST: dict[str, Any] = {"name": "restormer", "target": "host", "size": [64, 96]}
FULL: dict[str, Any] = {
    **LEAST,
    "task": "denoise:sigma=25",
    "seed": 3,
    "budget": {"name": "quick", "families": ["conv", "mamba"], "trials": 60},
    "source": {"path": "restormer.pth", "sha256": "ab" * 32},
    "versions": {"torch": "2.9"},
    "blocks": [
        {
            "name": f"latent.{index}",
            "kind": "channel",
            "shape": [1, 48, 8, 12],
            "params": 31300,
            "macs": 2_500_000,
            "latency_ms": latency,
            "candidates": [
                {"label": "conv", "latency_ms": 0.25},
                {"label": "mamba:state=2", "latency_ms": 0.75},
            ],
        }
        for index, latency in enumerate((1.25, 1.5))
    ],
    "decisions": {"latent.0": "mamba:state=2", "latent.1": "keep"},
    "log": [{"name": "trace", "seconds": 2.1, "modified": True, "notes": ["955 nodes"]}],
    "metrics": {
        "search": {
            "objective": "latency",
            "points": [[10.0, 31.0], [20.0, 31.5]],
            "front": [[10.0, 31.0], [20.0, 31.5]],
            "teacher": [20.0, 31.5],
            "chosen": [10.0, 31.0],
        },
        "quality": {
            "teacher": {"psnr": 31.5, "ssim": 0.89, "further": {"edges": 0.0125}},
            "hybrid": {"psnr": 31.4, "ssim": 0.88, "further": {"edges": 0.0375}},
            "drop_db": 0.1,
            "interval_db": [0.05, 0.15],
            "worst_db": 0.175,
            "worst_image": "cat.png",
            "images": 4,
            "origin": "images of photos",
            "window": [64, 96],
            "ran": "torch",
        },
        "latency": {
            "device": "host",
            "threads": 2,
            "teacher_ms": 12.3,
            "hybrid_ms": 6.15,
            "speedup": 2.0,
            "replaced": 1,
            "blocks": 2,
        },
        "verification": {
            "device": "emulator",
            "images": 2,
            "max_error": 3e-7,
            "psnr_to_torch": 146.4,
            "onnx_error": 2e-7,
        },
    },
}


class Page(HTMLParser):
    """Collects addresses, headings and unclosed elements."""

    VOID = ("meta", "img", "br", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def render(tmp_path: Path, manifest: dict[str, Any], **parts: Any) -> tuple[str, Page]:
    write_report(manifest, tmp_path / "report.html", **parts)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    return text, page


def test_everything_is_in_one_file(tmp_path: Path) -> None:
    plot = tmp_path / "front.png"
    Image.new("RGB", (4, 4)).save(plot)
    row = {"input": torch.zeros(1, 3, 8, 8), "clean": torch.ones(1, 3, 8, 8)}
    text, page = render(tmp_path, FULL, plot=plot, pictures=[row])
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(page.addresses) == 3
    assert all(each.startswith("data:image/png;base64,") for each in page.addresses)
    assert page.headings == [
        "restormer",
        "Quality",
        "Pictures",
        "Latency",
        "Search",
        "Blocks",
        "Verification",
        "Passes",
        "Provenance",
    ]
    for figure in ("2.00x", "-0.100 dB", "1 of 2", "31.500", "0.8800", "31,300", "955 nodes"):
        assert figure in text
    for words in (
        "mean over 4 images that nothing saw; the worst -0.175 dB</span>",
        '95% interval of the mean</td><td class="n">0.050 to 0.150 dB</td>',
        'largest loss</td><td class="n">0.175 dB, cat.png</td>',
        "4 images of photos that neither training nor the search nor healing saw, up to four "
        "windows of 64x96 of each",
    ):
        assert words in text
    assert "mamba:state=2" in text
    assert re.search(r"mamba:state=2</td><td class=\"n\">0\.75</td>", text)
    assert re.search(r"keep</td><td class=\"n\"></td>", text)
    assert "2 hybrids evaluated" in text
    assert "lost 0.500 dB there, at 0.50 of" in text
    assert "families=conv,mamba" in text
    assert "verified</span> on the emulator" in text
    assert "slower than its teacher" not in text


def test_precision_and_what_it_costs(tmp_path: Path) -> None:
    check = {**FULL["metrics"]["verification"], "precision": "fp16", "psnr_cost": 0.00067}
    manifest = {**FULL, "precision": "fp16", "metrics": {**FULL["metrics"], "verification": check}}
    text, _ = render(tmp_path, manifest)
    assert "host, 64x96, fp16, denoise:sigma=25" in text
    assert re.search(r"fp16 costs.*0\.0007 dB</td>", text)
    assert "in turn, in fp32" in text
    check["psnr_cost"] = None
    assert "fp16 costs" not in render(tmp_path, manifest)[0]
    text, _ = render(tmp_path, {**FULL, "precision": "fp32"})
    assert "host, 64x96, fp32, denoise" in text
    assert "costs" not in text


@pytest.mark.parametrize("absent", ["quality", "latency", "verification"])
def test_absent_metrics_are_left_out(tmp_path: Path, absent: str) -> None:
    metrics = {name: value for name, value in FULL["metrics"].items() if name != absent}
    _, page = render(tmp_path, {**FULL, "metrics": metrics})
    assert absent.capitalize() not in page.headings


def test_a_slower_hybrid_is_said(tmp_path: Path) -> None:
    latency = {**FULL["metrics"]["latency"], "speedup": 0.8}
    text, _ = render(tmp_path, {**FULL, "metrics": {"latency": latency}})
    assert "slower than its teacher" in text
    assert "verified" not in text


@pytest.mark.parametrize(
    "absent", ["task", "seed", "source", "blocks", "decisions", "log", "budget", "versions"]
)
def test_absent_entries_are_left_out(tmp_path: Path, absent: str) -> None:
    render(tmp_path, {name: value for name, value in FULL.items() if name != absent})


def test_nothing_but_the_name(tmp_path: Path) -> None:
    text, page = render(tmp_path, LEAST, plot=tmp_path / "absent.png")
    assert page.headings == ["restormer"]
    assert "64x96" in text
    assert "verified" not in text


def test_blocks_that_were_not_timed_have_no_empty_column(tmp_path: Path) -> None:
    timed, _ = render(tmp_path, FULL)
    assert ">ms</th>" in timed
    blocks = [{**block, "latency_ms": None} for block in FULL["blocks"]]
    untimed, _ = render(tmp_path, {**FULL, "blocks": blocks})
    assert ">ms</th>" not in untimed


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\""
    manifest = {
        **FULL,
        "name": evil,
        "task": evil,
        "source": {evil: evil},
        "decisions": {"latent.0": evil},
        "log": [{"name": evil, "seconds": 1.0, "notes": [evil]}],
    }
    text, _ = render(tmp_path, manifest, pictures=[{evil: torch.zeros(1, 3, 4, 4)}])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures(tmp_path: Path, channels: int) -> None:
    image = torch.linspace(-0.5, 1.5, channels * 64).reshape(1, channels, 8, 8)
    _, page = render(tmp_path, LEAST, pictures=[{"input": image}])
    data = base64.b64decode(page.addresses[0].partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (8, 8, 3)
    wanted = (image[0].clamp(0, 1) * 255).round().permute(1, 2, 0).expand(8, 8, 3)
    np.testing.assert_array_equal(pixels, wanted.numpy().astype(np.uint8))
