"""The C functions of a library: formats, strides, threads, and errors instead of crashes."""

from __future__ import annotations

import copy
import ctypes
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from distillc.codegen.build.emit import emit_weights
from distillc.codegen.build.library import build_library, build_parts
from distillc.errors import DeviceError, LoweringError
from distillc.frontend.trace import export_program
from distillc.runtime.library import Library, _image, weights_of
from distillc.runtime.native import FLAGS, FOLDER, MODEL
from distillc.targets.base import get_target
from distillc.zig import run_zig

SHAPE = (1, 3, 16, 24)
OK, BAD_ARGUMENT, BUSY, BAD_WEIGHTS = 0, 1, 4, 5


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 3, 3, padding=1))
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("library") / "model.so"
    build_library(export_program(network, SHAPE), get_target("host"), found, name='my "net"')
    return found


@pytest.fixture
def library(path: Path) -> Iterator[Library]:
    made = Library(path, threads=2)
    yield made
    made.close()


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE, dtype=np.float32)


def by_torch(network: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(x)).numpy()


def test_it_says_what_it_is(library: Library) -> None:
    info = library.info
    assert (info.api_version, info.name, info.target) == (3, b'my "net"', b"host")
    assert (info.input_width, info.input_height, info.input_channels) == (24, 16, 3)
    assert (info.output_width, info.output_height, info.output_channels) == (24, 16, 3)
    assert info.threads == 2
    assert info.kernels >= 2
    assert info.planned_bytes >= 2 * 3 * 16 * 24 * 4
    assert info.weight_bytes >= 2 * 3 * 8 * 9 * 4


def test_floats_in_planes_and_in_pixels(library: Library, network: nn.Module) -> None:
    x = image()
    wanted = by_torch(network, x)
    np.testing.assert_allclose(library.run(x), wanted, atol=1e-5)
    pixels = np.ascontiguousarray(x[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(library.run(pixels, "nhwc"), library.run(x))
    np.testing.assert_array_equal(
        library.run(x, sink="nhwc").transpose(2, 0, 1)[None], library.run(x)
    )


def test_bytes_are_rounded_and_keep_their_alpha(library: Library) -> None:
    bytes_ = np.random.default_rng(1).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    x = np.ascontiguousarray(bytes_[..., :3].transpose(2, 0, 1)[None] / np.float32(255))
    found = library.run(bytes_, "rgba", "rgba")
    wanted = np.clip(library.run(x)[0].transpose(1, 2, 0), 0, 1) * 255
    assert np.abs(found[..., :3] - wanted).max() <= 0.5001
    np.testing.assert_array_equal(found[..., 3], bytes_[..., 3])
    assert (library.run(x, sink="rgba")[..., 3] == 255).all()


def test_part_of_a_larger_image(library: Library) -> None:
    x = image()
    large = np.zeros((1, 3, 40, 50), np.float32)
    part = large[:, :, 5:21, 7:31]
    part[:] = x
    np.testing.assert_array_equal(library.run(part), library.run(x))


def test_threads_and_runs_do_not_change_the_numbers(path: Path) -> None:
    x = image()
    first = Library(path, 1).run(x)
    for threads in (2, 3, 7):
        library = Library(path, threads)
        for _ in range(20):
            np.testing.assert_array_equal(library.run(x), first)
        library.close()


def test_two_models_in_eight_threads(path: Path) -> None:
    models = [Library(path, threads=2) for _ in range(2)]
    inputs = [image(seed) for seed in range(8)]
    wanted = [Library(path, 1).run(x) for x in inputs]

    def ask(number: int) -> np.ndarray:
        while True:
            try:
                return models[number % 2].run(inputs[number])
            except DeviceError as error:
                if f"status {BUSY}" not in str(error):
                    raise

    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for found, one in zip(pool.map(ask, range(8)), wanted, strict=True):
                np.testing.assert_array_equal(found, one)


def test_times_of_the_steps(library: Library) -> None:
    steps = library.profile(image())
    assert len(steps) == library.info.kernels
    assert all(name and 0 < ms < 1000 for name, ms in steps)


def threads_of_this_process() -> set[int]:
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone lets threads move")
def test_workers_keep_off_the_core_of_their_caller(path: Path) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core leaves no choice")
    before = threads_of_this_process()
    library = Library(path, threads=2)
    (worker,) = threads_of_this_process() - before
    try:
        for core in sorted(cores)[:2]:
            os.sched_setaffinity(0, {core})
            library.run(image())
            assert os.sched_getaffinity(worker) == cores - {core}
    finally:
        os.sched_setaffinity(0, cores)
        library.close()


def test_more_threads_than_cores_may_run_anywhere(path: Path) -> None:
    cores = os.sched_getaffinity(0)
    before = threads_of_this_process()
    library = Library(path, threads=len(cores) + 1)
    library.run(image())
    workers = threads_of_this_process() - before
    assert len(workers) == len(cores)
    assert all(os.sched_getaffinity(worker) == cores for worker in workers)
    library.close()


def call(library: Library, **changes: object) -> tuple[int, str]:
    """Run with an input that is changed; return status and message."""
    x, y = image(), image()
    given, result = _image(x, "nchw"), _image(y, "nchw")
    for name, value in changes.items():
        setattr(given, name, value)
    functions = library._functions
    status = functions.distillc_model_run(library._model, ctypes.byref(given), ctypes.byref(result))
    return status, functions.distillc_last_error().decode()


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


@pytest.mark.parametrize("threads", [-1, 65])
def test_threads_that_make_no_sense(path: Path, threads: int) -> None:
    with pytest.raises(DeviceError, match=f"{threads} threads asked for, 1 to 64 are possible"):
        Library(path, threads)


def test_damaged_weights(path: Path, network: nn.Module, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    layer = network[0].weight.detach().numpy().tobytes()  # type: ignore[union-attr]
    start = data.index(layer)
    data[start + len(layer) // 2] ^= 1
    (tmp_path / "damaged.so").write_bytes(data)
    with pytest.raises(DeviceError, match=rf"weights .* are damaged.*status {BAD_WEIGHTS}"):
        Library(tmp_path / "damaged.so")


@pytest.fixture(scope="module")
def apart(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose weights are in a file."""
    found = tmp_path_factory.mktemp("apart") / "model.so"
    program = export_program(network, SHAPE)
    build_library(program, get_target("host"), found, weights=weights_of(found))
    return found


def test_weights_in_a_file(apart: Path, path: Path) -> None:
    library, inside = Library(apart), Library(path)
    assert weights_of(apart).stat().st_size == library.info.weight_bytes
    np.testing.assert_array_equal(library.run(image()), inside.run(image()))
    library.close()
    inside.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: None, "are in a file of their own: `weights` in the options says where"),
        (lambda data: data[:-8], "model.weights has .* bytes, the weights of network"),
        (lambda data: b"", "model.weights has 0 bytes"),
        (lambda data: data[:9] + bytes([data[9] ^ 4]) + data[10:], "are damaged"),
    ],
)
def test_a_file_of_weights_that_does_not_fit(
    apart: Path, tmp_path: Path, change: Callable[[bytes], bytes | None], message: str
) -> None:
    mine = tmp_path / "model.so"
    shutil.copy(apart, mine)
    changed = change(weights_of(apart).read_bytes())
    if changed is not None:
        weights_of(mine).write_bytes(changed)
    with pytest.raises(DeviceError, match=message):
        Library(mine)


@pytest.mark.parametrize("beside", [False, True])
def test_weights_of_half_the_size(
    network: nn.Module, path: Path, tmp_path: Path, beside: bool
) -> None:
    found = tmp_path / "model.so"
    program, file = export_program(network, SHAPE), weights_of(found) if beside else None
    build_library(program, get_target("host"), found, precision="fp16-weights", weights=file)
    library, x = Library(found), image()
    given, whole = library.run(x), Library(path)
    rounded = copy.deepcopy(network).half().float()
    np.testing.assert_allclose(given, by_torch(rounded, x), atol=1e-5)
    assert np.abs(given - by_torch(network, x)).max() > 1e-5
    assert library.info.weight_bytes <= whole.info.weight_bytes // 2 + 8
    library.close()
    whole.close()


def test_weights_too_large_for_halves(network: nn.Module, tmp_path: Path) -> None:
    large = copy.deepcopy(network)
    large[0].weight.data[0, 0, 0, 0] = 1e5  # type: ignore[union-attr]
    program = export_program(large, SHAPE)
    with pytest.raises(LoweringError, match="1e\\+05 is too large for float16"):
        build_library(program, get_target("host"), tmp_path / "x.so", precision="fp16-weights")


def test_no_library(tmp_path: Path) -> None:
    (tmp_path / "model.so").write_text("nothing")
    with pytest.raises(DeviceError, match="cannot be loaded"):
        Library(tmp_path / "model.so")


@pytest.mark.parametrize("white", [1023, 4095, 65472, 0])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "rgba"])
def test_whole_numbers_of_sixteen_bits(library: Library, layout: str, white: int) -> None:
    largest = white or 65535
    deep = np.random.default_rng(2).integers(0, largest + 1, (16, 24, 4), dtype=np.uint16)
    x = np.ascontiguousarray(deep[..., :3].transpose(2, 0, 1)[None] / np.float32(largest))
    given = {"nchw": deep[..., :3].transpose(2, 0, 1)[None], "nhwc": deep[..., :3], "rgba": deep}
    found = library.run(np.ascontiguousarray(given[layout]), f"{layout}16", f"{layout}16", white)
    found = found[0].transpose(1, 2, 0) if layout == "nchw" else found
    wanted = np.clip(library.run(x)[0].transpose(1, 2, 0), 0, 1) * largest
    assert np.abs(found[..., :3] - wanted).max() <= 0.51
    if layout == "rgba":
        np.testing.assert_array_equal(found[..., 3], deep[..., 3])


def test_opacity_goes_between_depths(library: Library) -> None:
    bytes_ = np.random.default_rng(1).integers(0, 256, (16, 24, 4), dtype=np.uint8)
    np.testing.assert_array_equal(
        library.run(bytes_, "rgba", "rgba16")[..., 3], bytes_[..., 3].astype(np.uint16) * 257
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"white": 4095}, "has 4095 for white: 16 bits have 1 to 65535, other formats 0"),
        ({"white": -1}, "has -1 for white"),
        ({"format": 3, "white": 65536}, "has 65536 for white"),
        ({"format": 3, "row_stride": 49, "plane_stride": 0}, "do not lie at multiples of 2"),
        ({"format": 3, "row_stride": 47, "plane_stride": 0}, "overlap"),
        ({"format": 6}, "unknown format 6"),
        ({"format": -1}, "unknown format -1"),
    ],
)
def test_sixteen_bits_that_do_not_fit(
    library: Library, changes: dict[str, object], message: str
) -> None:
    status, said = call(library, **changes)
    assert status == BAD_ARGUMENT
    assert message in said
