"""Weights inside a library, beside it, of half the size, and damaged."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from distillc.codegen.build.library import build_library
from distillc.errors import DeviceError, LoweringError
from distillc.frontend.trace import export_program
from distillc.runtime.manifest import weights_of
from distillc.targets.base import get_target
from tests.c_api import Library
from tests.runtime.library.calls import BAD_WEIGHTS, SHAPE, by_torch, image


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
