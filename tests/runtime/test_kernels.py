"""Single kernels of a library: timed, compared with the first, and counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tvm
from tvm.script import from_source

from distillc.codegen.build.library import build_kernels
from distillc.errors import DeviceError
from distillc.runtime.devices.local import missing_parts
from distillc.runtime.instruction_count import total
from distillc.runtime.kernels import count_kernels, time_kernels
from distillc.targets.base import get_target

SOURCE = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
    T.func_attr({{"global_symbol": "{name}"}})
    for i in range({count}):
        with T.sblock("y"):
            v = T.axis.spatial({count}, i)
            y[v] = x[v] * T.float32({factor})
"""
SHAPES = [(64,), (64,)]


def library(folder: Path, target: str = "host") -> Path:
    """Build kernels: doubles, the same, nearly the same, and one that leaves half out."""
    kinds = {"double": (64, 2.0), "same": (64, 2.0), "near": (64, 2.1), "half": (32, 2.0)}
    funcs = {
        name: from_source(SOURCE.format(name=name, count=count, factor=factor))
        for name, (count, factor) in kinds.items()
    }
    path = folder / "kernels.so"
    build_kernels(tvm.IRModule(funcs), get_target(target), path)
    return path


def test_kernels_are_timed_in_turn_and_compared_with_the_first(tmp_path: Path) -> None:
    names = ["double", "same", "near", "half"]
    found = time_kernels(library(tmp_path), names, SHAPES, 1, device="host", threads=1, runs=5)
    assert [len(each) for each in found.ms] == [5] * 4
    assert all(ms >= 0 for each in found.ms for ms in each)
    assert found.errors[:2] == (0.0, 0.0)
    assert found.errors[2] == pytest.approx(0.05, rel=1e-3)
    assert found.errors[3] == 1


def test_a_kernel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="triple"):
        time_kernels(library(tmp_path), ["triple"], SHAPES, 1, device="host", threads=1, runs=1)


@pytest.mark.skipif(bool(missing_parts()), reason="needs the emulator")
@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="needs qemu")
def test_kernels_are_counted_one_run_each(tmp_path: Path) -> None:
    path = library(tmp_path, "snapdragon8elite")
    counts, errors = count_kernels(path, ["double", "half"], SHAPES, 1, device="emulator")
    assert errors == (0.0, 1.0)
    double, half = (total(counts.kernels[name]) for name in ("double", "half"))
    assert 16 <= half < double < 1000
