"""Tuning records: the knobs that were best, by what is computed and by CPU.

A file of JSON lines a target; the last line about a kernel counts. Those that come with the package
are overruled by the user's own, in the user's cache, and these by a file that a caller names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import tvm_ffi
from tvm import tirx

from distillc.codegen.knobs import Choice
from distillc.targets.base import Target
from distillc.workdir import append_line, cache_folder, digest

SHIPPED = Path(__file__).parent / "records"


@dataclass(frozen=True)
class TuningRecord:
    """What a search found out about one kernel.

    Attributes:
        workload: What it computes, the digits of `workload`.
        kernel: The same for people: shapes of its buffers.
        cpu: LLVM's name of the CPU.
        rule: The schedule rule that took it.
        knobs: The best values.
        space: Digest of the space that was searched.
        default: Cost of the rule's own choice.
        cost: Cost of the best.
        unit: `ms`, or `cycles` of the static model.
    """

    workload: str
    kernel: str
    cpu: str
    rule: str
    knobs: Mapping[str, int]
    space: str
    default: float
    cost: float
    unit: str

    @property
    def choice(self) -> Choice:
        """What the schedule rules are given."""
        return Choice(self.rule, self.knobs)


Records = Mapping[str, TuningRecord]
"""Records by workload."""


def workload(func: tirx.PrimFunc) -> str:
    """Return 16 hex digits that name what a kernel computes, whatever its names.

    Args:
        func: Not scheduled yet, image axes merged: sizes of equally many pixels are one workload.
    """
    bare = tirx.PrimFunc(func.params, func.body, func.ret_type)
    return f"{tvm_ffi.structural_hash(bare) % 2**64:016x}"


def load_records(target: Target, extra: Path | None = None) -> Records:
    """Return the records that hold for a target: shipped, overruled by the user's, then by `extra`.

    Args:
        target: The target; records of other CPUs under its name are left out.
        extra: A further file of records.
    """
    files = [SHIPPED / f"{target.name}.jsonl", user_records(target), extra]
    return {key: each for file in files if file for key, each in read_records(file, target).items()}


def user_records(target: Target) -> Path:
    """Return the file of the user's own records, which need not exist."""
    return cache_folder() / "records" / f"{target.name}.jsonl"


def read_records(path: Path, target: Target) -> Records:
    """Return the records of one file that hold for a target's CPU.

    Lines that a crash cut short, or that another version wrote, are passed over.
    """
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            record = TuningRecord(**json.loads(line))
        except (ValueError, TypeError):
            continue
        if record.cpu == target.cpu:
            found[record.workload] = record
    return found


def append_record(path: Path, record: TuningRecord) -> None:
    """Add a record to a file.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    append_line(path, json.dumps(asdict(record), sort_keys=True))


def records_digest(records: Records) -> str:
    """Return 16 hex digits that name the choices of records; for keys of what was compiled."""
    return digest(sorted((key, each.rule, dict(each.knobs)) for key, each in records.items()))
