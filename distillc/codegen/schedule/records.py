"""Tuning records: the knobs that were best, by what is computed and by CPU.

A file of JSON lines a target; the last line about a kernel counts. Those that come with the package
are overruled by the user's own, in the user's cache, and these by a file that a caller names.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm import tirx

from distillc.codegen.kernels.builder import built_from
from distillc.codegen.knobs import ScheduleChoice
from distillc.errors import StorageError, reason
from distillc.sealed import name_lines, read_lines, seal_line
from distillc.targets.base import Target
from distillc.workdir import append_line, cache_folder, digest

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "records"

_PLACE = "tuning record"


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
    def choice(self) -> ScheduleChoice:
        """What the schedule rules are given."""
        return ScheduleChoice(self.rule, self.knobs)


Records = Mapping[str, TuningRecord]
"""Records by workload."""


def workload(func: tirx.PrimFunc) -> str:
    """Return 16 hex digits that name what a kernel computes, whatever its names.

    Args:
        func: Not scheduled yet, image axes merged: sizes of equally many pixels are one workload.
    """
    if built := built_from(func):
        name, sizes = built
        return digest([name, *sizes])
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

    Lines that are damaged, or that another version wrote, are passed over with a warning and stay
    in the file. Lines without a checksum are believed: people may write their own.

    Raises:
        StorageError: The file cannot be read.
    """
    try:
        records, damaged = read_lines(path, _PLACE, _record, checked=False)
    except OSError as error:
        raise StorageError(
            f"the tuning records cannot be read: {reason(error)}",
            where=str(path),
            hint="move what is there to another place",
        ) from error
    if damaged:
        _warn_once(path, tuple(damaged))
    return {each.workload: each for each in records if each.cpu == target.cpu}


def _record(entry: dict[str, Any]) -> TuningRecord:
    record = TuningRecord(**entry)
    words = (record.workload, record.kernel, record.cpu, record.rule, record.space, record.unit)
    if not all(isinstance(each, str) for each in words):
        raise TypeError("what names something is no text")
    if not all(isinstance(each, int) for each in record.knobs.values()):
        raise TypeError("a knob is not an integer")
    if not all(math.isfinite(each) for each in (record.default, record.cost)):
        raise ValueError("a cost is not finite")
    return record


@functools.cache
def _warn_once(path: Path, damaged: tuple[int, ...]) -> None:
    log.warning("%s: %s passed over, no tuning records", path, name_lines(damaged))


def append_record(path: Path, record: TuningRecord) -> None:
    """Add a record to a file.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    append_line(path, seal_line(_PLACE, asdict(record)))


def records_digest(records: Records) -> str:
    """Return 16 hex digits that name the choices of records; for keys of what was compiled."""
    return digest(sorted((key, each.rule, dict(each.knobs)) for key, each in records.items()))
