"""Tuning records: keys, files, what overrules what, and that schedules follow them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import tvm
import tvm_ffi
from torch import nn
from tvm import tirx

from distillc.codegen.kernels.selective_scan import selective_scan_kernel
from distillc.codegen.knobs import ScheduleChoice
from distillc.codegen.schedule import apply_rules
from distillc.codegen.schedule import records as module
from distillc.codegen.schedule.apply_rules import (
    find_kernel,
    schedule_func,
    schedule_kernel,
)
from distillc.codegen.schedule.records import (
    TuningRecord,
    append_record,
    load_records,
    read_records,
    records_digest,
    user_records,
)
from distillc.errors import StorageError
from tests.codegen.schedule.rules.kernels import AVX512, SSE, lower, random

RECORD = TuningRecord(
    "0123456789abcdef", "1x8x8", "x86-64", "schedule_contraction", {"run": 2}, "s", 2.0, 1.0, "ms"
)


def product(*size: int, channels: int = 16, precision: str = "fp32") -> tirx.PrimFunc:
    """Return the kernel of a 1x1 convolution."""
    module = nn.Conv2d(channels, 48, 1, bias=False)
    mod = lower(module, random(1, channels, *size), precision=precision)
    return next(
        func
        for _, func in mod.functions_items()
        if isinstance(func, tirx.PrimFunc) and "conv2d" in func.script()
    )


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")


def test_names_and_the_image_shape_do_not_matter_to_the_workload() -> None:
    func = product(32, 32)
    renamed = tvm.script.from_source(func.script().replace("conv2d_nchw", "y").replace("rc", "k"))
    keys = {find_kernel(each).workload for each in (func, renamed, product(16, 64))}
    assert len(keys) == 1
    assert find_kernel(product(32, 32, channels=8)).workload not in keys
    assert find_kernel(product(32, 32, precision="fp16")).workload not in keys


def test_the_workload_is_the_same_in_every_process() -> None:
    # Where this changes, the shipped records fit no kernel any more.
    assert find_kernel(product(32, 32)).workload == "d54610b202aa95e3"


def test_records_are_read_back_and_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "sse.jsonl"
    append_record(path, RECORD)
    append_record(path, replace(RECORD, knobs={"run": 4}))
    assert read_records(path, SSE)[RECORD.workload].knobs == {"run": 4}


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "sse.jsonl"
    append_record(path, RECORD)
    path.write_text(path.read_text() + '{"workload": "0')
    other = replace(RECORD, workload="f" * 16)
    append_record(path, other)
    assert set(read_records(path, SSE)) == {RECORD.workload, other.workload}
    assert json.loads(path.read_text().splitlines()[-1])["workload"] == other.workload


def test_damaged_lines_stay_in_the_file_and_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sse.jsonl"
    own = json.dumps(asdict(replace(RECORD, workload="a" * 16)))  # as people write them
    append_record(path, RECORD)
    sealed = path.read_text()
    flipped = sealed.replace('"run": 2', '"run": 6')
    wrong = [
        json.dumps({**asdict(RECORD), **each})
        for each in (
            {"cost": float("nan")},
            {"knobs": {"run": "2"}},
            {"rule": 7},
            {"knobs": [1]},
            {"more": 1},
        )
    ]
    text = "\n".join([own, flipped.strip(), *wrong, "\u2028", "[]", sealed])
    path.write_text(text)
    for _ in range(2):
        assert read_records(path, SSE) == {
            RECORD.workload: RECORD,
            "a" * 16: replace(RECORD, workload="a" * 16),
        }
    assert path.read_text() == text
    (line,) = [each.getMessage() for each in caplog.records]
    assert line == f"{path}: lines 2, 3, 4, 5, 6, ... passed over, no tuning records"


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read: Is a directory"):
        read_records(tmp_path, SSE)


def test_records_of_another_cpu_are_left_out(tmp_path: Path) -> None:
    append_record(tmp_path / "file", RECORD)
    assert read_records(tmp_path / "file", replace(AVX512, name="sse")) == {}


def test_the_users_records_overrule_the_shipped_and_a_named_file_both(tmp_path: Path) -> None:
    append_record(tmp_path / "shipped" / "sse.jsonl", RECORD)
    assert load_records(SSE)[RECORD.workload].knobs == {"run": 2}
    append_record(user_records(SSE), replace(RECORD, knobs={"run": 4}))
    assert load_records(SSE)[RECORD.workload].knobs == {"run": 4}
    append_record(tmp_path / "own", replace(RECORD, knobs={"run": 8}))
    assert load_records(SSE, tmp_path / "own")[RECORD.workload].knobs == {"run": 8}


def test_the_digest_names_choices_and_nothing_else() -> None:
    known = {RECORD.workload: RECORD}
    assert records_digest(known) == records_digest({RECORD.workload: replace(RECORD, cost=0.5)})
    changed = replace(RECORD, knobs={"run": 4})
    assert records_digest(known) != records_digest({RECORD.workload: changed})


def test_schedules_follow_records_of_their_rule() -> None:
    func = product(32, 32)
    kernel = find_kernel(func)
    record = replace(RECORD, workload=kernel.workload, knobs={"height": 2, "vectors": 1})
    tuned = schedule_func(func, SSE, "kernel", {kernel.workload: record})
    plain = schedule_func(func, SSE, "kernel")
    assert not tvm_ffi.structural_equal(tuned, plain)
    foreign = replace(record, rule="schedule_gram")
    same = schedule_func(func, SSE, "kernel", {kernel.workload: foreign})
    tvm.ir.assert_structural_equal(same, plain)


def test_a_rule_that_is_gone_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    apply_rules._warn_once.cache_clear()
    func = product(8, 8)
    kernel = find_kernel(func)
    assert kernel is not None
    gone = ScheduleChoice("schedule_gone", {"height": 2})
    for _ in range(2):
        schedule_kernel(kernel, SSE, "conv2d", gone)
    assert caplog.text.count("name a rule 'schedule_gone', which this version does not have") == 1


def test_the_scan_is_built_as_its_record_says() -> None:
    shape = (1, 32, 64, 1, 1, 1, 0)
    func = selective_scan_kernel(*shape, AVX512)
    kernel = find_kernel(func)
    assert kernel is not None
    plain = schedule_kernel(kernel, AVX512, "scan")
    assert plain.knobs.values == {"width": 16}
    tuned = schedule_kernel(kernel, AVX512, "scan", ScheduleChoice("selective_scan", {"width": 8}))
    assert tuned.knobs.values == {"width": 8}
    assert not tvm_ffi.structural_equal(tuned.func, plain.func)
