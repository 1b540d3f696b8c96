"""What a training step of a surrogate costs, beside one of `conv`.

    python -m tests.benchmarks.training_step [--labels mamba:values=50 ...]

Forward, backward and optimiser on (8, C, H, W), all labels in turn: processor time of one thread,
medians.
"""

from __future__ import annotations

import argparse
import time
from statistics import fmean, median

import torch
from torch import Tensor, nn

from distillc.surrogates.specs import build_surrogate
from tests.benchmarks.report import markdown

SHAPES = ((32, 64), (64, 16), (128, 8))
"""Channels and edge, as in the levels of a small Restormer on a 64x64 crop."""

RIVAL = "conv"


def step(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Return the milliseconds of processor time of one step."""
    start = time.process_time()
    optimizer.zero_grad()
    (module(x) - y).norm().backward()
    optimizer.step()
    return (time.process_time() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    labels = ["ssd:values=50,width=50", "ssd:values=50,width=66", "ssd:values=50"]
    labels += ["mamba:values=50,width=50", "mamba:values=50"]
    parser.add_argument("--labels", nargs="+", default=labels)
    parser.add_argument("--runs", type=int, default=31)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    labels = [RIVAL, *arguments.labels]
    rows: list[dict[str, str]] = []
    ratios: list[list[float]] = []
    for channels, edge in SHAPES:
        x, y = (
            torch.rand(8, channels, edge, edge).contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        made = []
        for label in labels:
            module = build_surrogate(label, channels).train()
            module.to(memory_format=torch.channels_last)
            made.append((module, torch.optim.AdamW(module.parameters(), fused=True)))
        times = [[step(*each, x, y) for each in made] for _ in range(arguments.runs)]
        row = {"shape": f"{channels} channels, {edge}x{edge}"}
        spent = [median(column) for column in zip(*times, strict=True)]
        for number, ms in enumerate(spent):
            row[str(number)] = f"{ms:.2f}" if number == 0 else f"{ms:.2f} ({ms / spent[0]:.2f})"
        rows.append(row)
        ratios.append([ms / spent[0] for ms in spent])
    columns = {"shape": "shape"}
    columns |= {f"`{label}`, ms": str(number) for number, label in enumerate(labels)}
    print(markdown(columns, rows))
    for label, own in zip(labels, zip(*ratios, strict=True), strict=True):
        print(f"{label}: {fmean(own):.2f} of {RIVAL}")


if __name__ == "__main__":
    main()
