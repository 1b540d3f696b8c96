"""Single operators at Restormer's shapes, in the engines' workers, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillc.frontend.cost import count_cost
from distillc.frontend.restormer import LayerNorm
from tests.benchmarks.networks import Artifacts
from tests.benchmarks.race import Worker, race

BURST = 6


class Gate(nn.Module):
    """gelu of one half of the channels, times the other."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, 1)
        return F.gelu(first) * second


@dataclass(frozen=True)
class Operator:
    """An operator: family, sizes in words, module, and shape of its input."""

    family: str
    sizes: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def seeded(self) -> nn.Module:
        """Return the module with the same random weights every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build().eval()


def restormer_operators(dim: int, size: int) -> Iterator[Operator]:
    """Yield what the first and the last level of Restormer are made of.

    Args:
        dim: Channels of the first level.
        size: Height and width of the image, pixels.
    """
    for level, heads in ((0, 1), (3, 8)):
        channels, edge = dim << level, size >> level
        hidden = int(channels * 2.66)

        def convolution(
            family: str, inner: int, outer: int, kernel: int, groups: int = 1, edge: int = edge
        ) -> Operator:
            def build() -> nn.Module:
                return nn.Conv2d(
                    inner, outer, kernel, padding=kernel // 2, groups=groups, bias=False
                )

            return Operator(
                family, f"{inner} to {outer}, {edge}x{edge}", build, (1, inner, edge, edge)
            )

        def plain(family: str, build: Callable[[], nn.Module], *shape: int) -> Operator:
            return Operator(family, "x".join(map(str, shape)), build, (1, *shape))

        yield convolution("1x1 convolution", channels, 3 * channels, 1)
        yield convolution("1x1 convolution", channels, 2 * hidden, 1)
        yield convolution("1x1 convolution", hidden, channels, 1)
        yield convolution("3x3 convolution", channels, channels * 2 if level else channels // 2, 3)
        yield convolution("depthwise 3x3", 3 * channels, 3 * channels, 3, 3 * channels)
        yield plain("layer norm", partial(LayerNorm, channels), channels, edge, edge)
        yield plain("gelu gate", Gate, 2 * hidden, edge, edge)
        head = channels // heads
        yield plain("softmax", partial(nn.Softmax, -1), heads, head, head)


def measure_operators(
    operators: list[Operator], engines: list[str], artifacts: Artifacts, threads: int, runs: int
) -> list[dict[str, Any]]:
    """Return one row for each operator: microseconds and GFLOP/s or GB/s of each engine,
    and how far their outputs lie apart.

    A round is a burst of runs, of which the first, that wakes threads, does not count.
    """
    rows = []
    for operator in operators:
        name = f"{operator.family} {operator.sizes}"
        workers: dict[str, Worker] = {}
        try:
            for engine in engines:
                make = artifacts.library if engine == "distillc" else artifacts.onnx
                built = make(name, operator.seeded, operator.shape)
                workers[engine] = Worker(engine, built.path, operator.shape, threads)
            times = race(workers, runs, burst=BURST, pause_s=0.02)
            outputs = [each.output for each in workers.values() if each.output is not None]
        finally:
            for worker in workers.values():
                worker.close()
        cost = count_cost(operator.build(), operator.shape)
        moved = 4 * (prod(operator.shape) + outputs[0].size + cost.params)
        row: dict[str, Any] = {"family": operator.family, "sizes": operator.sizes}
        row |= {"flops": 2 * cost.macs, "bytes": moved}
        row["max_error"] = max(float(np.abs(each - outputs[0]).max()) for each in outputs)
        for engine, ms in times.items():
            seconds = float(torch.tensor(ms).median()) * 1e-3
            row[f"{engine}_us"] = seconds * 1e6
            row[f"{engine}_gflops"] = 2 * cost.macs / seconds * 1e-9 if cost.macs else None
            row[f"{engine}_gbs"] = moved / seconds * 1e-9
        if "onnxruntime" in times and "distillc" in times:
            row["over_onnxruntime"] = row["onnxruntime_us"] / row["distillc_us"]
        rows.append(row)
    return rows
