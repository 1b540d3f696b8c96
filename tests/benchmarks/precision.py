"""What float16 costs and saves: PSNR against clean images, and executed instructions.

    python -m tests.benchmarks.precision TEACHER [BUNDLE ...] --data CBSD68 --size 64

Networks are compiled in each precision and run on crops of the images with noise of the task; the
cost is their PSNR against the clean crop, less torch's. Instructions are counted on one thread.
Nothing is timed, so other load on the machine changes no figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import distillc
from distillc.codegen.build.library import build_library
from distillc.data.images import open_test_set
from distillc.data.metrics import psnr
from distillc.frontend.trace import export_program
from distillc.runtime.bundle import Bundle
from distillc.runtime.devices import get_device
from distillc.runtime.instruction_count import count_instructions, total
from distillc.runtime.precision import PRECISIONS
from distillc.targets.base import Target, get_target
from tests.benchmarks.results import load_hybrid


@dataclass(frozen=True)
class Row:
    """One network in one precision.

    Attributes:
        network: Its name.
        precision: What it computes in.
        psnr: Mean PSNR against the clean crops, dB.
        cost: Mean PSNR of torch's output, less `psnr`, dB.
        largest_cost: The same of the worst crop.
        max_error: Largest absolute difference from torch.
        psnr_to_torch: Smallest PSNR against torch's output, dB.
        instructions: Executed per pixel; None where they are not counted.
    """

    network: str
    precision: str
    psnr: float
    cost: float
    largest_cost: float
    max_error: float
    psnr_to_torch: float
    instructions: float | None


def measure(
    name: str,
    module: nn.Module,
    precision: str,
    target: Target,
    pairs: Sequence[tuple[Tensor, Tensor]],
    count: bool,
) -> Row:
    """Compile a network, run it on (degraded, clean) crops of one shape, count its instructions."""
    shape = tuple(pairs[0][0].shape)
    device = get_device(target.devices[0])
    with tempfile.TemporaryDirectory(prefix="distillc-precision-") as folder:
        library = Path(folder) / "model.so"
        program = export_program(module, shape)
        output = build_library(program, target, library, precision=precision).output_shape
        costs, qualities, errors, distances = [], [], [], []
        for degraded, clean in pairs:
            wanted = module(degraded)
            result, _ = device.run([library], degraded.numpy(), output, threads=1)
            given = torch.from_numpy(result)
            qualities.append(psnr(given, clean))
            costs.append(psnr(wanted, clean) - qualities[-1])
            errors.append(float((given - wanted).abs().max()))
            distances.append(psnr(given, wanted))
        instructions = None
        if count:
            code = count_instructions(library, shape, output, target.devices[0]).code
            instructions = total(code) / (shape[2] * shape[3])
    return Row(
        name,
        precision,
        statistics.fmean(qualities),
        statistics.fmean(costs),
        max(costs),
        max(errors),
        min(distances),
        instructions,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| network | precision | PSNR dB | cost dB | of the worst crop | largest difference "
        "| PSNR to torch dB | instructions per pixel |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        counted = f"{row.instructions:,.0f}" if row.instructions else ""
        lines.append(
            f"| {row.network} | {row.precision} | {row.psnr:.3f} | {row.cost:.5f} "
            f"| {row.largest_cost:.5f} | {row.max_error:.1e} | {row.psnr_to_torch:.1f} "
            f"| {counted} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("bundles", type=Path, nargs="*")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", default="denoise:sigma=25")
    parser.add_argument("--target", default="snapdragon8elite")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--no-count", action="store_true", help="count no instructions")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    size = (arguments.size, arguments.size)
    teacher = distillc.load(arguments.teacher).at(size)
    networks = {"teacher": teacher.module}
    for path in arguments.bundles:
        networks[path.stem] = load_hybrid(Bundle.open(path), teacher).module
    data = open_test_set(arguments.data, arguments.task, teacher.in_channels)
    pairs = data.held_out(arguments.images, arguments.size)
    rows = []
    for name, module in networks.items():
        for precision in PRECISIONS:
            rows.append(
                measure(
                    name,
                    module,
                    precision,
                    get_target(arguments.target),
                    pairs,
                    not arguments.no_count,
                )
            )
            print(rows[-1], file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
