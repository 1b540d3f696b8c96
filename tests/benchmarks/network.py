"""Whole networks: ours against ONNX Runtime, OpenVINO, torch and ncnn.

    python -m tests.benchmarks.network --size 128 256 --json network.json
    python -m tests.benchmarks.network --size 64 --networks SwinIR-light DAT-light network.pth

The teacher is Restormer with random weights; in a hybrid every block is replaced by one surrogate.
Networks of others have a name (`published.py`) or are checkpoints that spandrel reads.
Every engine loads its network in a process of its own; they run in turn, never two at once, with
equal threads. Error is the largest difference from eager torch on the same random image.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

import numpy as np

from distillc.errors import UsageError
from distillc.surrogates.specs import parse_label
from tests.benchmarks.engines import ENGINES
from tests.benchmarks.networks import (
    TEACHER,
    Artifacts,
    NetworkSpec,
    Spec,
    add_network_arguments,
)
from tests.benchmarks.published import PublishedNetwork
from tests.benchmarks.race import Worker, WorkerError, race
from tests.benchmarks.report import describe_machine, markdown, percentiles, save

TOLERANCE = 1e-4
COLUMNS = {
    "network": "network",
    "size": "size",
    "engine": "engine",
    "median ms": "median_ms:.1f",
    "p10": "p10_ms:.1f",
    "p90": "p90_ms:.1f",
    "speed-up over ONNX Runtime": "over_onnxruntime:.2f",
    "over the best of it and OpenVINO": "over_best:.2f",
    "max error": "max_error:.1e",
    "build s": "build_s:.1f",
    "load s": "load_s:.1f",
    "remark": "remark",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, nargs="+", default=[128, 256])
    parser.add_argument(
        "--networks",
        nargs="+",
        default=[TEACHER, "conv", "ssd", "mamba"],
        help="the teacher, families of surrogates, published networks, or checkpoints",
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=[name for name in ENGINES if name not in ("torch-compile", "tvm-vm")],
        help="engines for the teacher; torch-compile takes minutes to compile",
    )
    parser.add_argument(
        "--hybrid-engines", nargs="+", choices=ENGINES, default=["distillc"], help="for hybrids"
    )
    add_network_arguments(parser)
    arguments = parser.parse_args()

    machine = describe_machine(arguments.threads)
    rows: list[dict[str, Any]] = []
    for size in arguments.size:
        plan = [
            (spec, engine)
            for spec in (_spec(name, size, arguments) for name in arguments.networks)
            for engine in (arguments.engines if _is_whole(spec) else arguments.hybrid_engines)
        ]
        rows += measure(plan, size, arguments)
    print(f"{machine['cpu']}, {arguments.threads} threads, medians of {arguments.runs} rounds\n")
    print(markdown(COLUMNS, rows))
    save(arguments.json, machine, rows=rows, runs=arguments.runs)
    if any(row["engine"] == "distillc" and row["remark"] for row in rows):
        sys.exit("distillc failed or is wrong; see the remarks")


def _spec(name: str, size: int, arguments: argparse.Namespace) -> Spec:
    """Return a Restormer for the teacher and families of surrogates, else a published network."""
    try:
        if name != TEACHER:
            parse_label(name)
    except UsageError:  # no family of surrogates
        return PublishedNetwork(name, size)
    return NetworkSpec(name, arguments.dim, tuple(arguments.blocks))


def _is_whole(spec: Spec) -> bool:
    return isinstance(spec, PublishedNetwork) or spec.name == TEACHER


def measure(
    plan: list[tuple[Spec, str]], size: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row for each network and engine; what fails has its reason in `remark`."""
    artifacts = Artifacts(arguments.work_dir)
    rows: list[dict[str, Any]] = []
    workers: dict[int, Worker] = {}
    try:
        for index, (spec, engine) in enumerate(plan):
            print(f"{size}: preparing {spec.name} for {engine}", file=sys.stderr)
            row: dict[str, Any] = {"network": spec.name, "size": size, "engine": engine}
            row |= asdict(spec) | {"remark": ""}
            row["against"] = spec.name if _is_whole(spec) else TEACHER
            rows.append(row)
            try:
                built = artifacts.file(engine, spec, size)
                row["build_s"] = built.seconds
                worker = Worker(engine, built.path, (1, 3, size, size), arguments.threads)
            except WorkerError as error:
                row["remark"] = str(error)
                continue
            except Exception as error:  # a peer's converter raises anything
                row["remark"] = f"not built: {str(error).strip().splitlines()[0][:200]}"
                continue
            workers[index] = worker
            row |= _compare(worker, artifacts.reference(spec, size))
        print(f"{size}: timing", file=sys.stderr)
        for index, ms in race(workers, arguments.runs).items():
            rows[index] |= percentiles(ms) | {"ms": ms}
    finally:
        for worker in workers.values():
            worker.close()
    add_ratios(rows)
    return rows


def _compare(worker: Worker, reference: np.ndarray) -> dict[str, Any]:
    assert worker.output is not None
    error = float(np.abs(worker.output - reference).max())
    remark = "" if error <= TOLERANCE else "WRONG: differs from torch"
    return {"max_error": error, "load_s": worker.load_s, "remark": remark}


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add how many times as fast each row is as its network in ONNX Runtime, and in the faster of
    ONNX Runtime and OpenVINO; for surrogates, as the teacher."""
    peers: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["engine"] in ("onnxruntime", "openvino") and "median_ms" in row:
            peers.setdefault(row["network"], {})[row["engine"]] = row["median_ms"]
    for row in rows:
        known = peers.get(row.get("against", TEACHER), {})
        if "median_ms" in row and "onnxruntime" in known:
            row["over_onnxruntime"] = known["onnxruntime"] / row["median_ms"]
        if "median_ms" in row and known:
            row["over_best"] = min(known.values()) / row["median_ms"]


if __name__ == "__main__":
    main()
