"""The order of a sort is torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm

from distillc.codegen.build.library import tvm_target
from distillc.codegen.kernels.argsort import argsort_kernel
from distillc.targets.base import get_target


def check(x: torch.Tensor, descending: bool = False) -> None:
    dtype = str(x.dtype).removeprefix("torch.")
    kernel = argsort_kernel(*x.shape, dtype, descending).with_attr("global_symbol", "main")
    library = tvm.compile(tvm.IRModule({"main": kernel}), tvm_target(get_target("host")))
    order = tvm.runtime.tensor(np.empty(x.shape, np.int64))
    library["main"](tvm.runtime.tensor(x.numpy()), order)
    wanted = x.sort(dim=1, descending=descending, stable=True).indices
    np.testing.assert_array_equal(order.numpy(), wanted.numpy())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_lengths(count: int) -> None:
    check(torch.randn(3, count))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int32])
def test_equal_elements_keep_their_order(dtype: torch.dtype, descending: bool) -> None:
    check((3 * torch.randn(2, 100)).round().to(dtype), descending)


def test_zeros_of_both_signs_and_infinities() -> None:
    check(torch.tensor([[0.0, -0.0, torch.inf, 0.0, -torch.inf, -0.0, torch.inf]]))
