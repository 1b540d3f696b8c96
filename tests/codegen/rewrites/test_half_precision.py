"""HalfPrecision: which operators compute in float16, and that casts stand beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
import tvm

from distillc.codegen.rewrites.half_precision import LONGEST, HalfPrecision
from tests.codegen.rewrites.graphs import calls, graph, run
from tests.codegen.schedule.rules.kernels import Function


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def halved(function: Callable[..., torch.Tensor], *xs: torch.Tensor) -> list[tuple[str, str]]:
    """Rewrite a function, assert that its numbers stay close; return its operators and types."""
    mod = HalfPrecision()(graph(function, *xs))
    tvm.relax.analysis.well_formed(mod)
    with torch.no_grad():
        wanted = Function(function)(*xs).numpy()
    given = run(mod, *xs)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, wanted, atol=0.02 * np.abs(wanted).max())
    return [(str(call.op.name).removeprefix("relax."), str(call.ty.dtype)) for call in calls(mod)]


def test_products_are_half_and_the_result_is_cast() -> None:
    w = random(8, 4, 1, 1)
    assert halved(lambda x: F.conv2d(x, w), random(1, 4, 6, 6)) == [
        ("astype", "float16"),
        ("nn.conv2d", "float16"),
        ("astype", "float32"),
    ]


def test_long_sums_stay_single() -> None:
    x, y = random(4, LONGEST + 1), random(LONGEST + 1, 4)
    assert halved(lambda a, b: a @ b, x, y) == [("matmul", "float32")]
    assert ("matmul", "float16") in halved(lambda a, b: a @ b, x[:, :9], y[:9])


def test_elementwise_work_follows_its_operands() -> None:
    w = random(4, 4, 1, 1)
    found = halved(lambda x: F.conv2d(x, w) * F.conv2d(x, w.abs()) + x, random(1, 4, 6, 6))
    assert ("multiply", "float16") in found
    assert ("add", "float32") in found  # the image is float32


def test_statistics_are_single() -> None:
    w = random(4, 4, 1, 1)

    def norm(x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, w)
        centred = y - y.mean(1, keepdim=True)
        return F.conv2d(centred * (centred * centred).mean(1, keepdim=True).add(1e-5).rsqrt(), w)

    found = halved(norm, random(1, 4, 6, 6))
    assert {dtype for name, dtype in found if name not in ("nn.conv2d", "astype")} == {"float32"}


def test_activations_give_the_type_back() -> None:
    w = random(4, 4, 1, 1)
    found = halved(lambda x: F.conv2d(F.gelu(F.conv2d(x, w)), w), random(1, 4, 6, 6))
    assert [each for each in found if each[0] == "nn.gelu"] == [("nn.gelu", "float32")]
    assert found.count(("nn.conv2d", "float16")) == 2


def test_casts_go_before_views() -> None:
    w = random(4, 4, 1, 1)
    found = halved(lambda x: F.conv2d(x, w).reshape(4, 36).square().sum(1), random(1, 4, 6, 6))
    convolution = found.index(("nn.conv2d", "float16"))
    assert found[convolution + 1 : convolution + 3] == [
        ("astype", "float32"),
        ("reshape", "float32"),
    ]


def test_a_network_without_numbers_to_round_stays() -> None:
    assert halved(lambda x: x.sum(1), random(2, 8)) == [("sum", "float32")]
