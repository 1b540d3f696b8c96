"""Types of results, as torch has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.codegen.operators.programs import check_compiled

IMAGE = torch.linspace(-3.2, 3.4, 24).reshape(1, 1, 4, 6)


def whole(x: Tensor) -> Tensor:
    return (x * 3).long()


def short(x: Tensor) -> Tensor:
    return (x * 3).int()


def truth(x: Tensor) -> Tensor:
    return x > 0.3


OF_FLOATS: list[Callable[[Tensor], Tensor]] = [
    torch.exp,
    torch.sigmoid,
    torch.tanh,
    torch.sin,
    lambda x: x.abs().sqrt(),
    lambda x: x**0.5,
    lambda x: 2.5**x,
    lambda x: x % 2.5,
    lambda x: x // 2.5,
    lambda x: torch.fmod(x, 2.5),
    lambda x: torch.div(x, 1.5, rounding_mode="trunc"),
    lambda x: 7.5 % (x + 20),
    lambda x: x.clamp(-1.5, 2.5),
    torch.trapezoid,
    lambda x: torch.gradient(x, dim=3)[0],
]
OF_WHOLE: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.clamp(min=0),
    lambda x: x.clamp(max=1),
    lambda x: x.clamp(2, -1),
    lambda x: 2 ** x.abs(),
    lambda x: x.abs() ** (x.abs() % 3),
    lambda x: 7 % (x + 20),
    lambda x: x << 2,
    lambda x: x >> 1,
    lambda x: x @ x.mT,
]


def results(given: Callable[[Tensor], Tensor], functions: list[Callable[[Tensor], Tensor]]) -> None:
    """Assert values, and types by what dividing or joining with them gives."""

    def all_of(x: Tensor) -> Tensor:
        found = [each(given(x)) for each in functions]
        return torch.cat([each.float().flatten() for each in found])

    check_compiled(all_of, IMAGE)


@pytest.mark.parametrize("given", [whole, short], ids=["int64", "int32"])
def test_functions_of_whole_numbers_give_floats(given: Callable[[Tensor], Tensor]) -> None:
    results(given, OF_FLOATS)


@pytest.mark.parametrize("given", [whole, short], ids=["int64", "int32"])
def test_functions_of_whole_numbers_give_whole_numbers(given: Callable[[Tensor], Tensor]) -> None:
    results(given, OF_WHOLE)


def test_functions_of_truth_values() -> None:
    results(
        truth,
        [
            torch.exp,
            lambda x: x % 2,
            lambda x: x % 0.7,
            lambda x: x**2,
            lambda x: x.sort(-1)[0],
            lambda x: x.scatter(3, x.long(), True),
            lambda x: torch.zeros_like(x).scatter(2, x.argsort(dim=2, stable=True), x),
        ],
    )


def test_bounds_the_wrong_way_round_give_the_upper_one() -> None:
    check_compiled(lambda x: x.clamp(2, -1), IMAGE, error=0)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16], ids=str)
def test_floats_beyond_a_short_type_wrap_around(kind: torch.dtype) -> None:
    """Values beyond the type reached the next operator whole."""
    check_compiled(lambda x: (x * 20000).to(kind).float() + 1, IMAGE, error=0)


def test_a_number_that_is_written_has_the_type_of_what_it_is_written_to() -> None:
    check_compiled(lambda x: whole(x).scatter(3, truth(x).long(), 7.5) / 2, IMAGE, error=0)


def test_layers_of_whole_numbers_stay_whole() -> None:
    """TVM gives floats, and `//` then does something else."""

    def layers(x: torch.Tensor) -> torch.Tensor:
        n = (x * 9).long()
        weight = torch.arange(18).reshape(2, 1, 3, 3)
        largest, place = F.max_pool2d(n, 2, return_indices=True)
        found = [
            F.max_pool2d(n, 2) // 2,
            largest // 2,
            place,
            F.conv2d(n, weight)[:, :1, :3, :3] // 2,
        ]
        return torch.cat([each.flatten(1) for each in found], 1) / 2

    check_compiled(layers, torch.randn(1, 1, 6, 6))


def test_choices_and_bounds_of_several_types() -> None:
    def chosen(x: torch.Tensor) -> torch.Tensor:
        n = (x * 9).long()
        bounds = torch.tensor([-0.5, 2.5])
        return torch.where(n > 0, n, x) + n.clamp(bounds, bounds + 3)

    check_compiled(chosen, torch.randn(3, 2))


def test_products_of_float64_are_exact() -> None:
    """They were computed in float32, whose type they had."""
    weight = torch.eye(4, dtype=torch.float64)[:3] * (1 + 2.0**-40)

    def product(x: Tensor) -> Tensor:
        wide = x.double()
        found = [
            F.linear(wide, weight, weight[0, :3]),
            wide[:, :3] @ weight[:, :3],
            wide[:, :3].cumsum(1),
        ]
        return ((torch.cat(found) - x[:, :3].repeat(3, 1)) * 2.0**30).float()

    check_compiled(product, torch.rand(3, 4) + 1)


def test_convolutions_of_float64_have_their_type() -> None:
    def convolved(x: Tensor) -> Tensor:
        y = F.conv2d(x.double(), torch.ones(1, 1, 3, 3, dtype=torch.float64))
        return torch.cat([y, x.double()[..., :2, :4]]).float()

    check_compiled(convolved, IMAGE)


def test_products_and_convolutions_of_float16_have_their_type() -> None:
    """Joined with float16, they were refused."""
    image = torch.rand(1, 1, 6, 6)

    def halves(x: Tensor) -> Tensor:
        y = x.half()
        convolved = F.conv2d(y, torch.ones(1, 1, 3, 3, dtype=torch.float16), padding=1)
        return torch.cat([y @ y.mT, convolved, y], -1).float()

    check_compiled(halves, image, error=4e-3)


def test_bytes_below_nothing_are_wrapped() -> None:
    def functions(x: torch.Tensor) -> torch.Tensor:
        y = x.to(torch.uint8)
        found = [-y, y.sign(), y.clamp(-1, 2), y.sgn(), y.any(0, keepdim=True).expand_as(y)]
        found += [y // -3, y % -3, y.cummax(0).values]
        return torch.stack(found)

    check_compiled(functions, torch.tensor([0.0, 1.0, 3.0, 200.0, 255.0]), error=0)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32])
def test_whole_numbers_are_finite(kind: torch.dtype) -> None:
    def functions(x: torch.Tensor) -> torch.Tensor:
        y = x.to(kind)
        found = [y.isnan(), y.isinf(), y.isfinite(), y.sign(), y.sinh(), y.nansum(0).expand(4)]
        return torch.stack([each.float() for each in found])

    check_compiled(functions, torch.tensor([0.0, 1.0, 3.0, 2.0]))


def test_functions_of_halves() -> None:
    names = ("asin", "acos", "atan", "asinh", "atanh", "acosh")
    check_compiled(
        lambda x: torch.stack([getattr(x.half(), name)() for name in names]),
        torch.tensor([-0.9, 0.0, 0.3, 0.7]),
        error=2e-3,
    )
