"""What the benchmarks print and write: tables, machine, statistics."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from distillc.workdir import write_json

PACKAGES = ("distillc", "apache-tvm", "onnxruntime", "openvino", "ncnn", "pnnx", "torch", "numpy")


def markdown(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table whose columns line up.

    Args:
        columns: Heading -> key of the rows, with a format after a colon: `"median_ms:.1f"`. A row
            that lacks the key, or has None, leaves the cell empty.
        rows: Numbers and text.
    """
    fields = [column.partition(":") for column in columns.values()]
    cells = [list(columns)]
    cells += [
        [
            "" if row.get(key) is None else format(row[key], spec if _numeric(row[key]) else "")
            for key, _, spec in fields
        ]
        for row in rows
    ]
    # A column is one of numbers when nothing else stands in it.
    right = [
        all(_numeric(row[key]) for row in rows if row.get(key) is not None) for key, _, _ in fields
    ]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        + " |"
        for row in cells
    ]
    rule = [
        "-" * (width + 1) + (":" if number else "-")
        for width, number in zip(widths, right, strict=True)
    ]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _numeric(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    """Return median, 10 % and 90 % of some times, with those names."""
    low, median, high = (float(each) for each in np.percentile(ms, (10, 50, 90)))
    return {"median_ms": median, "p10_ms": low, "p90_ms": high}


def fit_exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the exponent b of the power law y = a x^b that fits best in logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def describe_machine(threads: int) -> dict[str, Any]:
    """Return what a reader needs to judge the figures: CPU, cores, versions, threads, load."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if "model name" in line), "")
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def save(path: Path | None, machine: Mapping[str, Any], **results: Any) -> None:
    """Write results with the machine they come from as JSON, if a path is given."""
    if path:
        write_json(path, {"machine": machine, **results})
