"""Kernels: how near they come to what the machine can do, and to ONNX Runtime's.

    python -m tests.benchmarks.kernels --size 128 --json kernels.json

Four parts: the machine's peaks; every kernel of the teacher and of a hybrid, timed inside a whole
inference; single operators at Restormer's shapes beside ONNX Runtime; the selective scan alone, on
one thread. GFLOP/s counts sums of products, GB/s counts inputs and outputs once.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from typing import Any

from distillc.targets.base import get_target
from tests.benchmarks.kernel_times import time_kernels
from tests.benchmarks.kernel_work import Work, kernel_work
from tests.benchmarks.networks import TEACHER, Artifacts, NetworkSpec, add_network_arguments
from tests.benchmarks.operators import measure_operators, restormer_operators
from tests.benchmarks.peak import measure_peak, peak_table
from tests.benchmarks.report import describe_machine, markdown, save
from tests.benchmarks.scan import COLUMNS as SCAN_COLUMNS
from tests.benchmarks.scan import scan_rows

RATES = {
    "ms": "ms:.2f",
    "share": "share:.1%",
    "GFLOP/s": "gflops:.1f",
    "of FMA peak": "of_fma:.0%",
    "GB/s": "gbs:.1f",
    "of memory triad": "of_triad:.0%",
}
FAMILY_COLUMNS = {"rule": "rule", "kernels": "kernels", "calls": "calls", **RATES}
KERNEL_COLUMNS = {"rule": "rule", "kernel": "name", "calls": "calls", **RATES, "shapes": "shapes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--networks", nargs="*", default=[TEACHER, "mamba"])
    parser.add_argument(
        "--engines",
        nargs="*",
        default=["distillc", "onnxruntime"],
        choices=["distillc", "onnxruntime", "openvino"],
        help="for single operators; none leaves them out",
    )
    parser.add_argument("--top", type=int, default=25, help="kernels to print, slowest first")
    add_network_arguments(parser)
    given = parser.parse_args()

    machine = describe_machine(given.threads)
    peaks = measure_peak(given.threads)
    print(f"{machine['cpu']}, {given.threads} threads\n\n{peak_table(peaks)}")
    results: dict[str, Any] = {"peaks": peaks, "size": given.size, "kernels": {}}
    artifacts = Artifacts(given.work_dir)
    for family in given.networks:
        print(f"compiling {family}", file=sys.stderr)
        spec = NetworkSpec(family, given.dim, tuple(given.blocks))
        shape = (1, 3, given.size, given.size)
        library = artifacts.file("distillc", spec, given.size).path
        work = kernel_work(spec.build(), get_target("host"), shape)
        times = time_kernels(library, shape, given.threads, given.runs)
        rows = kernel_rows(times, work, peaks)
        results["kernels"][family] = rows
        total = sum(row["ms"] for row in rows)
        print(f"\n{family} at {given.size}x{given.size}: {total:.1f} ms in kernels\n")
        print(markdown(FAMILY_COLUMNS, family_rows(rows, peaks)))
        print(f"\nthe slowest {min(given.top, len(rows))} of {len(rows)} kernels\n")
        print(markdown(KERNEL_COLUMNS, rows[: given.top]))
    if given.engines:
        operators = list(restormer_operators(given.dim, given.size))
        rows = measure_operators(operators, given.engines, artifacts, given.threads, given.runs)
        results["operators"] = rows
        print(f"\nsingle operators\n\n{markdown(operator_columns(given.engines), rows)}")
    results["scan"] = scan_rows(16384, 96, given.runs)
    print(f"\nselective scan, one thread\n\n{markdown(SCAN_COLUMNS, results['scan'])}")
    save(given.json, machine, **results)


def kernel_rows(
    times: dict[str, dict[str, float]], work: dict[str, Work], peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """Return one row for each kernel that ran, the slowest first.

    Args:
        times: Calls and milliseconds in one inference, by name.
        work: What one call has to do; what is missing here is the virtual machine's own.
        peaks: See `measure_peak`.
    """
    rows = []
    for name, timing in times.items():
        calls = timing["calls"]
        each = work.get(name, Work("virtual machine", "", 0, 0))
        row = {"name": name, "rule": each.rule, "shapes": each.shapes, **timing}
        rows.append(row | {"flops": each.flops * calls, "bytes": each.bytes * calls})
    return _rated(rows, peaks)


def family_rows(rows: list[dict[str, Any]], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """Sum kernels by the rule that scheduled them, the slowest first."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["rule"]].append(row)
    summed = [
        {"rule": rule, "kernels": len(group)}
        | {key: sum(row[key] for row in group) for key in ("calls", "ms", "flops", "bytes")}
        for rule, group in groups.items()
    ]
    return _rated(summed, peaks)


def _rated(rows: list[dict[str, Any]], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """Add rates and shares to rows with `ms`, `flops` and `bytes`."""
    total = sum(row["ms"] for row in rows)
    rated = []
    for row in sorted(rows, key=lambda row: -row["ms"]):
        gflops = row["flops"] / row["ms"] * 1e-6 if row["flops"] else None
        gbs = row["bytes"] / row["ms"] * 1e-6 if row["bytes"] else None
        rated.append(
            row
            | {"share": row["ms"] / total, "gflops": gflops, "gbs": gbs}
            | {"of_fma": gflops / peaks["fma"] if gflops else None}
            | {"of_triad": gbs / peaks["memory"] if gbs else None}
        )
    return rated


def operator_columns(engines: list[str]) -> dict[str, str]:
    """Return the columns of the table of operators."""
    columns = {"operator": "family", "sizes": "sizes"}
    for engine in engines:
        columns |= {f"{engine} us": f"{engine}_us:.0f"}
        columns |= {f"{engine} GFLOP/s": f"{engine}_gflops:.1f"}
        columns |= {f"{engine} GB/s": f"{engine}_gbs:.1f"}
    columns |= {"speed-up over ONNX Runtime": "over_onnxruntime:.2f"}
    return columns | {"outputs differ by": "max_error:.1e"}


if __name__ == "__main__":
    main()
