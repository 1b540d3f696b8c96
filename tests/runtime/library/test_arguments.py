"""Wrong arguments of the C functions: errors instead of crashes."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.build.emit import emit_weights
from distillc.codegen.build.library import build_parts
from distillc.errors import DeviceError
from distillc.frontend.trace import export_program
from distillc.runtime.native import FLAGS, FOLDER, MODEL
from distillc.targets.base import get_target
from distillc.zig import run_zig
from tests.c_api import Library, _image
from tests.runtime.library.calls import BAD_ARGUMENT, OK, SHAPE, call, image


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "the input has no data"),
        ({"width": 25}, "25 wide, 16 high with 3 channels; the network takes 24, 16, 3"),
        ({"height": -1}, "-1 high"),
        ({"channels": 4}, "with 4 channels"),
        ({"format": 7}, "unknown format 7"),
        ({"format": 2}, "the network takes 24, 16, 4"),
        ({"row_stride": 90}, "rows or planes of the input overlap"),
        ({"row_stride": 98, "plane_stride": 0}, "do not lie at multiples of 4"),
        ({"plane_stride": 8}, "rows or planes of the input overlap"),
    ],
)
def test_images_that_do_not_fit(library: Library, changes: dict[str, object], message: str) -> None:
    status, said = call(library, **changes)
    assert status == BAD_ARGUMENT
    assert message in said
    assert call(library) == (OK, "")


ADDRESSES = 1 << 39
"""Bytes within which an image must end."""


@pytest.fixture(scope="module")
def addresses() -> np.ndarray:
    """As many bytes as the largest image has, all zero and none of them in use."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        memory = mmap.mmap(-1, ADDRESSES, flags=flags, prot=mmap.PROT_READ)
    except OSError as error:
        pytest.skip(f"the system gives no {ADDRESSES} addresses: {error}")
    return np.frombuffer(memory, np.uint8)


near = st.one_of(
    st.integers(0, 1 << 12), st.integers(0, 1 << 40), st.integers(0, (1 << 64) - 1)
).map(lambda stride: stride & ~3)


@settings(max_examples=150, deadline=None)
@example(0, 1 << 40, 0)
@example(0, 1 << 63, 0)
@example(0, 1 << 60, 4)
@example(0, 0, 1 << 63)
@example(0, 96, (1 << 64) - 4)
@example(0, ADDRESSES // 16, 96)
@example(1, 1 << 40, 0)
@example(1, 1 << 60, 0)
@example(2, 1 << 40, 0)
@example(2, (1 << 64) - 4, 0)
@given(st.integers(0, 2), near, near)
def test_strides_stay_within_the_addresses(
    path: Path, addresses: np.ndarray, form: int, rows: int, planes: int
) -> None:
    _, channels, height, width = SHAPE
    line = width * (4, 12, 4)[form]
    row = rows or line
    plane = planes or row * height
    end = row * (height - 1) + line + (plane * (channels - 1) if form == 0 else 0)
    fits = row >= line and plane >= row * height and max(end, row * height) <= ADDRESSES
    library = Library(path, threads=1)
    changes = {"format": form, "channels": 4 if form == 2 else 3, "data": addresses.ctypes.data}
    status, said = call(library, **changes, row_stride=rows, plane_stride=planes)
    library.close()
    if form == 0 or not planes:  # where there are no planes, their stride says nothing
        assert status == (OK if fits else BAD_ARGUMENT), said


def test_a_result_beyond_the_addresses(library: Library) -> None:
    x = image()
    source, sink = _image(x, "nchw"), _image(x, "nchw")
    sink.plane_stride = 1 << 62
    functions = library._functions
    for call_it, rest in (("run", ()), ("restore", (-1,))):
        run = getattr(functions, f"distillc_model_{call_it}")
        assert run(library._model, ctypes.byref(source), ctypes.byref(sink), *rest) == BAD_ARGUMENT
        assert b"the strides of the output do not fit the memory" in functions.distillc_last_error()


@pytest.fixture(scope="module")
def checked(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that looks whether its models are alive."""
    folder = tmp_path_factory.mktemp("checked")
    parts = build_parts(export_program(network, SHAPE), get_target("host"), folder)
    sources = [*parts.files, emit_weights(folder), *(FOLDER / f"{name}.c" for name in MODEL)]
    words = ("cc", *FLAGS, "-DDISTILLC_CHECKED", "-shared", "-fPIC", "-o", folder / "model.so")
    assert run_zig(*words, *sources) is None
    return folder / "model.so"


def test_a_checked_build_finds_a_destroyed_model(checked: Path) -> None:
    library, living = Library(checked), Library(checked)
    functions, model = library._functions, library._model
    library.close()
    x = image()
    images = [ctypes.byref(_image(each, "nchw")) for each in (x, image(1))]
    times = (ctypes.c_double * library.info.kernels)()
    calls = {
        "run": images,
        "restore": [*images, -1],
        "profile": [*images, times, len(times)],
        "info": [ctypes.byref(library.info)],
        "destroy": [],
    }
    for name, rest in calls.items():
        for _ in range(2):
            status = getattr(functions, f"distillc_model_{name}")(model, *rest)
            assert name == "destroy" or status == BAD_ARGUMENT
            assert functions.distillc_last_error() == b"the model was destroyed"
    assert functions.distillc_model_kernel(model, 0) is None
    assert living.run(x).shape == SHAPE


def test_null_pointers(library: Library) -> None:
    functions, null = library._functions, None
    assert functions.distillc_model_create(null, null) == BAD_ARGUMENT
    assert functions.distillc_model_run(null, null, null) == BAD_ARGUMENT
    assert functions.distillc_model_run(library._model, null, null) == BAD_ARGUMENT
    assert functions.distillc_model_info(null, null) == BAD_ARGUMENT
    assert functions.distillc_model_profile(library._model, null, null, null, 0) == BAD_ARGUMENT
    assert functions.distillc_model_kernel(null, 0) is None
    assert functions.distillc_model_kernel(library._model, 10**6) is None
    functions.distillc_model_destroy(null)


def test_no_library(tmp_path: Path) -> None:
    (tmp_path / "model.so").write_text("nothing")
    with pytest.raises(DeviceError, match="cannot be loaded"):
        Library(tmp_path / "model.so")
