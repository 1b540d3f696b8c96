"""The report of a conversion: one HTML file without external parts."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image
from torch import Tensor

from distillc.report.tables import losses
from distillc.workdir import write_text


def write_report(
    manifest: Mapping[str, Any],
    out: Path,
    plot: Path | None = None,
    pictures: Sequence[Mapping[str, Tensor]] = (),
) -> None:
    """Write the report. What the manifest lacks is left out.

    Args:
        manifest: A bundle's manifest: name, target, size, task, source, versions, seed, blocks,
            decisions, log, and metrics with quality, latency and verification.
        out: The HTML file.
        plot: The search's plot, a PNG.
        pictures: Rows of equal-sized images by caption, (1, C, H, W) float32 in [0, 1]; four
            channels are shown as packed Bayer planes, of other numbers the first three.
    """
    environment = Environment(
        loader=PackageLoader("distillc.report", "."), autoescape=select_autoescape(["html"])
    )
    text = environment.get_template("report.html").render(
        m=manifest,
        losses=losses(manifest.get("metrics", {}).get("quality")),
        plot=base64.b64encode(plot.read_bytes()).decode() if plot and plot.exists() else None,
        crops=[{name: _png(image) for name, image in row.items()} for row in pictures],
    )
    write_text(out, text)


def _png(image: Tensor) -> str:
    """Return (1, C, H, W) float32 in [0, 1] as base64 of a PNG."""
    shown = _visible(image[0].detach())
    pixels = (shown.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(pixels)).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def _visible(image: Tensor) -> Tensor:
    """Return (1, H, W) or (3, H, W) of (C, H, W): Bayer planes as RGB, of others the first view."""
    channels = image.shape[0]
    if channels == 4:
        red, green, other, blue = image
        return torch.stack([red, (green + other) / 2, blue])
    return image[:3] if channels >= 3 else image[:1]
