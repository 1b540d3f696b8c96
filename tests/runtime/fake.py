"""A folder that opens as a bundle and computes nothing: for what looks at files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillc.runtime import app
from distillc.runtime.bundle import Bundle, create_bundle
from distillc.runtime.manifest import PARTS

FILES = (*PARTS, *app.FILES, "fake-bench")


def fake_bundle(folder: Path, **entries: Any) -> Bundle:
    """Make a bundle whose files hold their names and `seed`."""
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(f"{name} {entries.get('seed', 0)}")
    facts = {
        "verified": True,
        "name": "fake",
        "target": "host",
        "devices": ["host"],
        "precision": "fp32",
        "bench": "fake-bench",
        "size": [16, 24],
        "scale": 2,
        "input_shape": [1, 3, 16, 24],
        "output_shape": [1, 3, 32, 48],
        "planned_bytes": 4096,
        "source": {"path": "fake.pth"},
        "task": "sr:scale=2",
        "decisions": {"blocks.0": "keep"},
        "metrics": {
            "quality": {
                "teacher": {"psnr": 31.0, "ssim": 0.9},
                "hybrid": {"psnr": 30.9, "ssim": 0.9},
                "images": 8,
            }
        },
        **entries,
    }
    return create_bundle(folder, facts, FILES)
