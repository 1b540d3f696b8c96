"""tune_modules: kernels once, the costliest first, recorded at once, and left out the next time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.codegen.schedule.records import load_records, read_records
from distillc.codegen.stages import lower as lower_program
from distillc.codegen.tuning.tuner import find_tasks, kernel_calls, tune_modules
from distillc.frontend.trace import export_program
from distillc.surrogates.specs import build_surrogate
from tests.codegen.schedule.rules.kernels import AVX512, SSE, lower, random
from tests.codegen.tuning.test_search_schedules import Priced, narrow


def module() -> tvm.IRModule:
    """Return a network of two kernels, the first called twice."""
    conv = nn.Conv2d(16, 16, 1, bias=False)
    return lower(nn.Sequential(conv, conv, nn.Conv2d(16, 48, 1, bias=False)), random(1, 16, 32, 32))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_kernels_are_found_once_with_their_calls() -> None:
    assert sorted(map(len, kernel_calls(module()).values())) == [1, 2]
    tasks = find_tasks([module(), module()], SSE)
    assert sorted(task.calls for task in tasks) == [2, 4]
    assert {task.operands.outputs for task in tasks} == {1}


def test_kernels_on_float16_keep_their_defaults() -> None:
    conv = nn.Conv2d(16, 16, 1, bias=False)
    mod = lower(nn.Sequential(conv, conv), random(1, 16, 32, 32), precision="fp16")
    assert len(kernel_calls(mod)) > 1
    assert find_tasks([mod], SSE) == []


def test_the_scan_is_among_the_kernels() -> None:
    program = export_program(build_surrogate("mamba", 16), (1, 16, 16, 16))
    mod = lower_program(program, AVX512)
    assert "axial_scan" in {task.default.rule for task in find_tasks([mod], AVX512)}


def test_results_are_recorded_used_and_known_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    result = tune_modules([module()], SSE, Priced(narrow), path, 600)
    assert (len(result.records), result.known, result.left) == (2, 0, 0)
    assert (result.before, result.after) == (6.0, 3.0)
    assert read_records(path, SSE).keys() == {each.workload for each in result.records}
    again = tune_modules([module()], SSE, Priced(narrow), path, 600)
    assert (again.records, again.known, again.before) == ((), 2, 0)
    plain = schedule_module(module(), SSE, {})
    tuned = schedule_module(module(), SSE, load_records(SSE, path))
    assert plain.script() != tuned.script()


def test_without_time_nothing_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    result = tune_modules([module()], SSE, Priced(narrow), path, 0)
    assert (result.records, result.left) == ((), 2)
    assert not path.exists()


def test_tuned_networks_give_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    mod, x = module(), tvm.runtime.tensor(random(1, 16, 32, 32).numpy())
    tune_modules([mod], SSE, Priced(narrow), path, 600)
    outputs = [
        relax.VirtualMachine(tvm.compile(schedule_module(mod, SSE, known), "llvm"), tvm.cpu())[
            "main"
        ](x).numpy()
        for known in ({}, load_records(SSE, path))
    ]
    torch.testing.assert_close(*map(torch.from_numpy, outputs), rtol=1e-4, atol=1e-4)
