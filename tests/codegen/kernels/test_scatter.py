"""Writes at computed places: the last counts, and none goes astray."""

from __future__ import annotations

import numpy as np
import tvm

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.scatter import scatter_kernel
from distillc.targets.base import get_target


def scattered(x: np.ndarray, places: list[int], values: np.ndarray, reduce: str = "") -> np.ndarray:
    kernel = scatter_kernel(len(x), len(places), str(x.dtype), reduce)
    kernel = kernel.with_attr("global_symbol", "main")
    library = tvm.compile(tvm.IRModule({"main": kernel}), tvm_target(get_target("host")))
    y = tvm.runtime.tensor(np.empty_like(x))
    library["main"](*map(tvm.runtime.tensor, (x, np.array(places, np.int64), values)), y)
    return y.numpy()


def test_elements_are_written_in_turn() -> None:
    x, values = np.zeros(5, np.float32), np.arange(4, dtype=np.float32) + 1
    y = scattered(x, [3, 0, 3, -1], values)
    np.testing.assert_array_equal(y, np.array([2, 0, 0, 3, 4], np.float32))


def test_places_outside_are_not_written() -> None:
    x, values = np.arange(4), np.full(3, 9)
    np.testing.assert_array_equal(scattered(x, [4, -5, 2**40], values), x)


def test_elements_are_added_up() -> None:
    x, values = np.ones(5, np.float32), np.arange(5, dtype=np.float32) + 1
    y = scattered(x, [3, 0, 3, -1, 7], values, "sum")
    np.testing.assert_array_equal(y, np.array([3, 1, 1, 5, 5], np.float32))


def test_elements_are_joined_in_other_ways() -> None:
    x, values, places = np.full(4, 2, np.float32), np.array([3, 4, 1], np.float32), [1, 1, 3]
    found = {each: scattered(x, places, values, each).tolist() for each in ("prod", "amax", "amin")}
    assert found == {"prod": [2, 24, 2, 2], "amax": [2, 4, 2, 2], "amin": [2, 2, 2, 1]}
