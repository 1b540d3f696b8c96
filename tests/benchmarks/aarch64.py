"""Instructions per pixel of aarch64 code under qemu: the teacher, hybrids, and ONNX Runtime.

    python -m tests.benchmarks.aarch64 --json out.json
    python -m tests.benchmarks.aarch64 --networks SwinIR-light DAT-light --arm DIR

Everything on one thread, one inference, the whole process: TVM's runtime, ONNX Runtime's and the C
library count too. Counts are exact and repeatable, but they are not times: see
docs/guide/static_cost.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import distillc
from distillc.codegen.build.library import build_library
from distillc.codegen.build.onnx_export import export_onnx
from distillc.codegen.tuning.static_cost import static_cost
from distillc.frontend.cost import count_cost
from distillc.frontend.trace import export_program
from distillc.passes import FindAttention, SynthesizeSurrogates, Trace
from distillc.runtime.aarch64_classes import CLASSES
from distillc.runtime.instruction_count import Instruction, classes, count_instructions, total
from distillc.targets.base import get_target
from distillc.workdir import write_json
from tests.benchmarks.arm_onnxruntime import ONNXRUNTIME, count_onnxruntime, prepare
from tests.benchmarks.published import PublishedNetwork

CHECKPOINT = Path(__file__).parents[2] / "examples/checkpoints/restormer_tiny_denoise_sigma25.pth"
HYBRIDS = ("conv", "mamba")
TARGET = "snapdragon8elite"
LANES = 4
ENGINE = f"ONNX Runtime {ONNXRUNTIME}"


def hybrids(checkpoint: Path, size: int) -> dict[str, nn.Module]:
    """Return the teacher and, by name, hybrids of one family each."""
    passes = [Trace(), FindAttention(), SynthesizeSurrogates(HYBRIDS)]
    net = distillc.Pipeline(passes).run(distillc.load(checkpoint).at((size, size)))
    found = {label: net.hybrid({block.name: label for block in net.blocks}) for label in HYBRIDS}
    return {"teacher": net.hybrid({}), **found}


def row(engine: str, pixels: int, code: Sequence[Instruction]) -> dict[str, Any]:
    """Return what an engine executed, per pixel of the input."""
    parts = {name: count / pixels for name, count in classes(code).items()}
    return {"engine": engine, "all": total(code) / pixels, **parts}


def measure(
    modules: Mapping[str, nn.Module], size: int, arm: Path | None, cycles: bool
) -> list[dict[str, Any]]:
    """Count everything.

    Args:
        modules: Networks by name.
        size: Height and width of the image, pixels.
        arm: Folder of the arm64 Python; None leaves ONNX Runtime out.
        cycles: Whether to model cycles, with LLVM's analyser.
    """
    shape, pixels = (1, 3, size, size), size * size
    rows: list[dict[str, Any]] = []
    for name, module in modules.items():
        facts = {"network": name, "macs": count_cost(module, shape).macs / pixels}
        with tempfile.TemporaryDirectory(prefix="distillc-aarch64-") as folder:
            library, model = Path(folder) / "model.so", Path(folder) / "model.onnx"
            program = export_program(module, shape)
            info = build_library(program, get_target(TARGET), library)
            count = count_instructions(library, shape, info.output_shape)
            own: dict[str, float] = {"own": total(count.code) / pixels}
            if cycles:
                costs = static_cost(count.kernels, get_target(TARGET)).values()
                modelled = sum(cost.cycles for cost in costs)
                own["cycles"] = modelled / pixels
                own["multiply_adds_per_cycle"] = (
                    sum(cost.multiply_adds for cost in costs) / modelled
                )
            rows.append(facts | own | row("distillc", pixels, count.process))
            print(rows[-1], file=sys.stderr, flush=True)
            if arm:
                export_onnx(program, model)
                rows.append(facts | row(ENGINE, pixels, count_onnxruntime(arm, model, shape)))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        f"| network | engine | MACs | MACs / {LANES} | all | {' | '.join(CLASSES)} |",
        "|---|---|" + "---:|" * (3 + len(CLASSES)),
    ]
    for each in rows:
        figures = [each["macs"], each["macs"] / LANES, each["all"]]
        figures += [each[name] for name in CLASSES]
        cells = " | ".join(f"{figure:,.0f}" for figure in figures)
        lines.append(f"| {each['network']} | {each['engine']} | {cells} |")
    return "\n".join(lines)


def cycle_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the modelled cycles as a Markdown table, without the networks that have none."""
    lines = ["| network | cycles per pixel | multiply-adds per cycle |", "|---|---:|---:|"]
    lines += [
        f"| {each['network']} | {each['cycles']:,.0f} | {each['multiply_adds_per_cycle']:.2f} |"
        for each in rows
        if "cycles" in each
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument(
        "--networks", nargs="+", help="published networks instead of the checkpoint and its hybrids"
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument(
        "--arm", type=Path, help="folder for the arm64 Python (filled once); without it no ONNX"
    )
    parser.add_argument("--cycles", action="store_true", help="model cycles too (Debian: llvm-19)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.arm:
        prepare(arguments.arm.resolve())
    arm = arguments.arm and arguments.arm.resolve()
    size = arguments.size
    if arguments.networks:
        modules = {name: PublishedNetwork(name, size).build() for name in arguments.networks}
    else:
        modules = hybrids(arguments.checkpoint, size)
    rows = measure(modules, size, arm, arguments.cycles)
    print(table(rows))
    if arguments.cycles:
        print(f"\n{cycle_table(rows)}")
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
