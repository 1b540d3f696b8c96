"""Does the static cost order kernels as the clock does? The same method on this machine.

    python -m tests.benchmarks.static_cost --json out.json

Every kernel is compiled for x86-64 with AVX2 (qemu 7 and 8 know no AVX-512), counted under
qemu-x86_64, costed with the model of this machine's CPU, and timed on it, one thread. Schedule
variants of one product come from targets that claim more or fewer, longer or shorter registers:
their work is the same, so their order says what the model is worth for tuning.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import gelu

from distillc.codegen.build.library import build_library
from distillc.codegen.tuning.static_cost import static_cost
from distillc.frontend.cost import count_cost
from distillc.frontend.restormer import Attention, LayerNorm
from distillc.frontend.trace import export_program
from distillc.runtime.benchmark import time_libraries
from distillc.runtime.instruction_count import count_instructions, total
from distillc.surrogates.specs import build_surrogate
from distillc.targets.base import Target, get_target
from distillc.workdir import write_json

SIZE = 64
FILES = ((128, 10), (128, 16), (128, 32), (256, 10), (256, 12), (256, 16), (256, 24), (256, 32))
"""Register files that targets claim: bits of a register, number of registers. The CPU has 256 and
16: with more, accumulators spill."""


@dataclass(frozen=True)
class Row:
    """One kernel or variant: cycles of the model, executed instructions, measured milliseconds."""

    name: str
    group: str
    macs: int
    instructions: int
    cycles: float
    ms: float


class Gate(nn.Module):
    """gelu of one half of the channels times the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, 1)
        return gelu(first) * second


def kernels() -> dict[str, tuple[nn.Module, int]]:
    """Return modules by name, with the channels of their input."""

    def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> tuple[nn.Module, int]:
        padding = kernel // 2
        return (
            nn.Conv2d(inputs, outputs, kernel, padding=padding, groups=groups, bias=False),
            inputs,
        )

    return {
        "1x1 48 to 144": conv(48, 144),
        "1x1 48 to 256": conv(48, 256),
        "1x1 128 to 48": conv(128, 48),
        "1x1 96 to 96": conv(96, 96),
        "3x3 3 to 48": conv(3, 48, 3),
        "3x3 48 to 24": conv(48, 24, 3),
        "3x3 48 to 3": conv(48, 3, 3),
        "depthwise 48": conv(48, 48, 3, 48),
        "depthwise 144": conv(144, 144, 3, 144),
        "layer norm 48": (LayerNorm(48), 48),
        "layer norm 96": (LayerNorm(96), 96),
        "gate 96": (Gate(), 96),
        "pixel shuffle 48": (nn.PixelShuffle(2), 48),
        "attention 48": (Attention(48, 1, False), 48),
        "conv surrogate 48": (build_surrogate("conv", 48), 48),
        "mamba surrogate 48": (build_surrogate("mamba", 48), 48),
        "mamba:state=4 surrogate 32": (build_surrogate("mamba:state=4", 32), 32),
    }


def measure(runs: int) -> list[Row]:
    """Cost and time every kernel, and the variants of one product and one depthwise convolution."""
    machine = get_target("host")
    avx2 = replace(machine, cpu="x86-64-v3", vector_bits=256, registers=16)
    found = kernels()
    rows = []
    for name, (module, channels) in found.items():
        rows += compare([name], "kernels", module, channels, [avx2], machine.cpu, runs)
    for name in ("1x1 48 to 144", "1x1 128 to 48", "3x3 48 to 24"):
        module, channels = found[name]
        targets = [replace(avx2, vector_bits=bits, registers=count) for bits, count in FILES]
        names = [f"{name}, {count} x {bits} bits" for bits, count in FILES]
        rows += compare(names, name, module, channels, targets, machine.cpu, runs)
    return rows


def compare(
    names: Sequence[str],
    group: str,
    module: nn.Module,
    channels: int,
    targets: Sequence[Target],
    cpu: str,
    runs: int,
) -> list[Row]:
    """Compile a module for each target; count, cost, and time the results in turn."""
    shape = (1, channels, SIZE, SIZE)
    with tempfile.TemporaryDirectory(prefix="distillc-static-") as folder:
        libraries = [Path(folder) / f"{index}.so" for index in range(len(targets))]
        program = export_program(module, shape)
        outputs = [
            build_library(program, target, library).output_shape
            for target, library in zip(targets, libraries, strict=True)
        ]
        stats = time_libraries(libraries, shape, outputs[0], threads=1, runs=runs)
        rows = []
        for name, target, library, each in zip(names, targets, libraries, stats, strict=True):
            count = count_instructions(library, shape, outputs[0], "host")
            costs = static_cost(count.kernels, target, cpu)
            cycles = sum(cost.cycles for cost in costs.values())
            macs = count_cost(module, shape).macs
            # The tenth percentile: other programs on the machine only ever add time.
            rows.append(Row(name, group, macs, total(count.code), cycles, each.p10_ms))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation; equal values share the mean of their ranks."""

    def ranks(values: Sequence[float]) -> torch.Tensor:
        ordered = torch.tensor(values, dtype=torch.float64)
        below = (ordered[None] < ordered[:, None]).sum(1)
        equal = (ordered[None] == ordered[:, None]).sum(1)
        return below + (equal - 1) / 2

    return float(torch.corrcoef(torch.stack([ranks(first), ranks(second)]).double())[0, 1])


def table(rows: Sequence[Row]) -> str:
    """Return the rows and the correlations as Markdown."""
    lines = ["| kernel | MACs | instructions | model cycles | ms |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row.name} | {row.macs:,} | {row.instructions:,} | {row.cycles:,.0f} | {row.ms:.3f} |"
        for row in rows
    ]
    lines += ["", "| rank correlation with ms | n | instructions | model cycles |"]
    lines.append("|---|---:|---:|---:|")
    for name, figures in correlations(rows).items():
        cells = f"{figures['n']} | {figures['instructions']:.2f} | {figures['cycles']:.2f}"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def correlations(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return Spearman's correlations with the measured time, of everything and of each group."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return {
        name: {
            "n": len(group),
            "instructions": spearman([r.instructions for r in group], [r.ms for r in group]),
            "cycles": spearman([r.cycles for r in group], [r.ms for r in group]),
        }
        for name, group in groups.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = measure(arguments.runs)
    print(table(rows))
    if arguments.json:
        figures = {"rows": [asdict(row) for row in rows], "spearman": correlations(rows)}
        write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
