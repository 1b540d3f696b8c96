"""Arithmetic as torch has it, and functions that TVM lacks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from distillc.codegen.operators.prepare import decompose, prepare
from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared
from tests.codegen.schedule.rules.kernels import Function

HOST = get_target("host")


def test_hypotenuse() -> None:
    assert "hypot" not in check_prepared(lambda x: torch.hypot(x, x + 1), torch.randn(3, 4))


def test_sums_and_differences_with_a_factor() -> None:
    def summed(x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, x.relu(), alpha=2) - torch.sub(x, x.exp(), alpha=0.5)

    check_prepared(summed, torch.randn(3))
    program = torch.export.export(Function(summed), (torch.randn(3),))
    assert "alpha" not in str(prepare(decompose(program)).graph)


def test_whole_numbers_become_floats_where_torch_makes_them() -> None:
    def mixed(x: torch.Tensor) -> torch.Tensor:
        order = x.argsort(1)
        return (
            1 / (order + 1)
            + order / 3
            + order * 0.5
            + (order + 0.5) * (1.5 - order) / (order / order.abs())
        )

    program = torch.export.export(Function(mixed), (torch.randn(3, 4),))
    for node in prepare(decompose(program)).graph.nodes:
        name = str(node.target).split(".")[1:2]
        if name in (["sub"], ["mul"], ["div"], ["reciprocal"]):
            assert all(each.meta["val"].is_floating_point() for each in node.all_input_nodes)
    check_prepared(lambda x: x.argsort(1) / 3 + (x.argsort(1) + 0.5) * 0.5, torch.randn(3, 4))


def test_arithmetic_of_whole_numbers_with_numbers_of_python() -> None:
    """The importer gives a number int32, and TVM then refuses it beside int64."""

    def whole(x: torch.Tensor) -> torch.Tensor:
        n = (x * 8).long()
        parts = (n // 3, n % 5, torch.fmod(n, 4), torch.div(n, 3, rounding_mode="trunc"))
        return torch.stack(parts).to(x.dtype)

    x = torch.linspace(-3, 3, 24).reshape(1, 1, 4, 6)
    check_prepared(whole, x)
    check_compiled(whole, x, error=0)


def test_functions_that_tvm_lacks() -> None:
    def functions(x: torch.Tensor) -> torch.Tensor:
        y = x.flip(-1)
        found = [x.sinh(), x.cosh(), x.exp2(), x.erfc(), torch.copysign(x, y)]
        found += [torch.signbit(x).float(), F.rrelu(x, 0.1, 0.4)]
        found += [torch.fmax(x, y), torch.fmin(x, y), torch.heaviside(x, torch.tensor(0.25))]
        return torch.stack(found, 1)

    x = torch.tensor([-3.0, -1e-4, 0.0, 1e-4, 0.5, 2.0, -0.0, 7.0]).reshape(1, 1, 2, 4)
    check_prepared(functions, x)
    check_compiled(functions, x)


def test_fmax_takes_the_number_beside_none() -> None:
    x = torch.tensor([1.0, float("nan"), 2.0, float("nan")])
    for function in (torch.fmax, torch.fmin):
        check_compiled(lambda x, function=function: function(x, x.roll(1)), x)


@pytest.mark.parametrize("function", [F.selu, F.celu, lambda x: F.elu(x, 0.3)])
def test_exponential_units_with_scales(function: Callable[..., torch.Tensor]) -> None:
    check_compiled(
        lambda x: (
            function(
                x,
            )
            * 1.0
        ),
        torch.linspace(-3, 3, 32).reshape(1, 1, 4, 8),
    )


def test_truth_values_among_numbers() -> None:
    def counted(x: torch.Tensor) -> torch.Tensor:
        count = torch.count_nonzero(x > 0.5, 1).float()
        return count[:, None] + (x == 0.25).float().softmax(1) + ((x > 0) == 1)

    check_compiled(counted, torch.rand(1, 5, 4, 8).sub(0.2).mul(4).round().div(4))


@given(st.booleans(), st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None)
def test_edges_below_a_number(right: bool, edges: list[float]) -> None:
    bounds = torch.tensor(sorted(edges))
    x = torch.cat([bounds, torch.randn(5)]).reshape(1, -1)
    found = check_prepared(lambda x: torch.bucketize(x, bounds, right=right).float(), x)
    assert "bucketize" not in found
    side = "right" if right else "left"
    found = check_prepared(lambda x: torch.searchsorted(bounds, x, side=side).float(), x)
    assert "searchsorted" not in found


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, math.inf])
def test_distances_of_rows(p: float) -> None:
    found = check_prepared(
        lambda x: torch.cdist(x, x[:, :3] + 0.5, p, "donot_use_mm_for_euclid_dist"),
        torch.randn(2, 5, 4),
    )
    assert "_cdist_forward" not in found


def test_mish_needs_one_exponential() -> None:
    x = torch.cat([torch.linspace(-90, 90, 181), torch.tensor([0.0, 1e-30, torch.inf])])
    found = check_prepared(F.mish, x[None])
    assert list(found).count("exp") == 1
    assert not {"mish", "tanh", "log1p", "log"} & {*found}


@pytest.mark.parametrize("size", [(300,), (3, 300), (5, 2)])
def test_places_of_the_diagonal(size: tuple[int, ...]) -> None:
    check_prepared(lambda x: x[..., :1] * torch.eye(*size), torch.rand(1, 1))


@pytest.mark.parametrize("right", [False, True])
def test_edges_of_each_row(right: bool) -> None:
    def found(x: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(x.sort(-1)[0], x.flip(1), right=right).float()

    assert "searchsorted" not in check_prepared(found, torch.rand(2, 3, 7))


def test_distances_and_shares() -> None:
    def mixed(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.nn.functional.pdist(x[0])
        return torch.lerp(x, x.flip(1), x.sigmoid()) * torch.dist(x, x * 0.5) + pairs.sum()

    assert not {"_pdist_forward", "dist"} & set(check_prepared(mixed, torch.randn(2, 5, 6)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.where(x != x, 0.5, x),
        lambda x: torch.where(x == x, x, 0.5),
        lambda x: x.nanmean(1, keepdim=True).expand_as(x),
    ],
    ids=["differs from itself", "equals itself", "mean of numbers"],
)
def test_numbers_that_are_none(function: Callable[..., torch.Tensor]) -> None:
    x = torch.linspace(-1, 2, 12).reshape(3, 4)
    check_compiled(lambda x: function(torch.where(x > 0, x, torch.nan)).nan_to_num(9.0), x)


@pytest.mark.parametrize(
    "combine",
    [
        torch.add,
        torch.mul,
        torch.maximum,
        torch.minimum,
        torch.eq,
        torch.ne,
        torch.lt,
        torch.ge,
        lambda a, b: a * 2 + b * 3,
        lambda a, b: (a + 1) * (b * 5 - 3),
        lambda a, b: a.int() * b.long(),
        lambda a, b: a.amax(-1) & b.amin((0, 3)),
        lambda a, b: a.max(-1).values & b.min(-1).values,
        lambda a, b: a.float().isfinite() & b,
        lambda a, b: torch.logaddexp(a.float(), b.float()),
    ],
)
def test_compiled_truth_values(combine: Callable[..., torch.Tensor]) -> None:
    check_compiled(
        lambda x: combine(x > 0, x < 2).to(torch.float32), torch.randn(1, 2, 3, 70).round()
    )


def test_nothing_times_nan_is_nan() -> None:
    x = torch.tensor([1.0, math.nan, math.inf, -2.0])
    check_compiled(lambda x: torch.stack([x * 0, x * 0.0, 0 * x]), x)


def test_nan_stands_behind_all_edges() -> None:
    x, edges = torch.tensor([-1.0, math.nan, 0.5, 9.0]), torch.tensor([0.0, 1.0])
    check_compiled(lambda x: torch.bucketize(x, edges) * 1.0, x)


@pytest.mark.parametrize("function", [torch.hypot, torch.copysign, torch.fmod, torch.atan2])
def test_operands_of_two_types(function: Callable[..., torch.Tensor]) -> None:
    def mixed(x: torch.Tensor) -> torch.Tensor:
        others = [x.flip(0).to(kind) for kind in (torch.int32, torch.float16, torch.float64)]
        found = [function(x, y) for y in others] + [function(y, x) for y in others]
        small = x.abs().to(torch.uint8)
        found += [function(small, x), function(x, small)]
        assert found[2].dtype == found[5].dtype == torch.float64
        return torch.cat([each.double() for each in found])

    x = torch.tensor([-3.0, 1.5, 254.0, -7.25, 16.0, 2.0])
    check_compiled(mixed, x, error=1e-6)


def test_sides_whose_squares_do_not_fit() -> None:
    x = torch.tensor([3e30, 3e-30, 0.0, math.inf, -4.0, math.nan])
    check_compiled(lambda x: torch.hypot(x, x.flip(0) * 0 + 4 / 3 * x), x)
    check_compiled(lambda x: torch.hypot(x.half(), 3 * x.half()), torch.tensor([3e4, 3.0, -8e3]))


def test_signs_of_numbers() -> None:
    signs = (2, -3.0, -0.0, 0)
    check_compiled(
        lambda x: torch.stack([torch.copysign(x, each) for each in signs]), torch.randn(5)
    )


@pytest.mark.parametrize("nothing", [0, 0.0, -0.0])
def test_division_by_a_literal_nothing(nothing: float) -> None:
    def divided(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [
                *(x / nothing, x // nothing, x % nothing, torch.fmod(x, nothing)),
                *(x.to(torch.int32) / nothing, x.half() / nothing),
            ]
        )

    check_compiled(divided, torch.tensor([2.0, -1.0, 0.0, math.inf, math.nan]))


def test_halves_whose_powers_do_not_fit() -> None:
    def functions(x: torch.Tensor) -> torch.Tensor:
        y = x.half()
        return torch.stack([F.mish(y), y.sinh(), y.cosh(), F.softplus(y), F.selu(y)])

    x = torch.tensor([11.5, -11.5, 15.0, 19.0, 300.0, -300.0, 0.5, 0.0])
    check_compiled(functions, x, error=2e-3)


def test_bilinear_layer() -> None:
    weight, bias = torch.randn(5, 3, 4), torch.randn(5)
    check_compiled(lambda x: F.bilinear(x[:, :3], x[:, 3:], weight, bias), torch.randn(6, 7))
