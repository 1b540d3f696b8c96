"""The axial scan: by the recurrence, by its kernel, by plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distillc.errors import LoweringError, UsageError
from distillc.surrogates import native
from distillc.surrogates.axial_scan import DIRECTIONS, axial_scan

Sizes = tuple[int, int, int, int, int, int, int]


def operands(sizes: Sizes, seed: int = 0) -> list[Tensor]:
    """Draw u, delta, A, B, C, D, delta_bias for (b, heads, channels of a head, m, n, h, w)."""
    b, g, p, m, n, h, w = sizes
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rates = -torch.rand(g, generator=generator) * 3 - 0.01
    weights = (normal(b, m, n, h, w) for _ in range(2))
    return [
        normal(b, g * p, h, w),
        normal(b, g, h, w),
        rates,
        *weights,
        normal(g * p),
        normal(g),
    ]


def pixel_by_pixel(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, names: str
) -> Tensor:
    """The recurrence as the paper writes it, for one channel and line after the other."""
    heads, size = len(A), u.shape[1] // len(A)
    ways = names.split(",")
    y = torch.empty_like(u)
    for d in range(u.shape[1]):
        g = d // size
        group, way = g * B.shape[1] // heads, ways[g * len(ways) // heads]
        given = [u[:, d], delta[:, g], B[:, group], C[:, group]]
        if way in ("right", "left"):
            given = [each.mT for each in given]  # now down or up
        x, steps, into, out = (each.flip(-2) if way in ("up", "left") else each for each in given)
        dt = F.softplus(steps + bias[g])
        h = torch.zeros_like(into[:, :, 0])
        rows = []
        for t in range(x.shape[1]):
            h = (
                torch.exp(dt[:, None, t] * A[g]) * h
                + dt[:, None, t] * into[:, :, t] * x[:, None, t]
            )
            rows.append((h * out[:, :, t]).sum(1) + D[d] * x[:, t])
        found = torch.stack(rows, 1)
        found = found.flip(-2) if way in ("up", "left") else found
        y[:, d] = found.mT if way in ("right", "left") else found
    return y


def agree(actual: Tensor | None, wanted: Tensor | None, tolerance: float) -> None:
    assert actual is not None
    assert wanted is not None
    scale = max(1.0, wanted.abs().max().item())
    assert (actual - wanted).abs().max().item() <= tolerance * scale


@st.composite
def scans(draw: st.DrawFn) -> tuple[Sizes, str]:
    ways = draw(st.lists(st.sampled_from(DIRECTIONS), min_size=1, max_size=4))
    share, size = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4, 7, 8, 16, 29]))
    sides = (draw(st.integers(1, 19)), draw(st.integers(1, 19)))
    groups = draw(st.integers(1, 3))
    return (draw(st.integers(1, 2)), share * len(ways), size, groups, draw(st.integers(1, 3)),
            *sides), ",".join(ways)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(scans(), st.booleans(), st.integers(0, 1000))
def test_values_and_gradients_equal_the_recurrence(
    scan: tuple[Sizes, str], compiled: bool, seed: int
) -> None:
    sizes, names = scan
    values = operands(sizes, seed)
    ours = [each.clone().requires_grad_() for each in values]
    exact = [each.double().requires_grad_() for each in values]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distillc.surrogates.axial_scan.has_kernels", lambda: compiled)
        y = axial_scan(*ours, names)
        wanted = pixel_by_pixel(*exact, names)
        agree(y, wanted, 2e-5)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        y.backward(grad)
    wanted.backward(grad.double())
    for own, other in zip(ours, exact, strict=True):
        agree(own.grad, other.grad, 1e-4)


def test_layouts_do_not_matter() -> None:
    values = operands((2, 4, 4, 1, 2, 6, 9))
    last = [
        each.to(memory_format=torch.channels_last) if each.dim() == 4 else each for each in values
    ]
    names = ",".join(DIRECTIONS)
    assert torch.equal(axial_scan(*values, names), axial_scan(*last, names))


def test_the_operator_keeps_torchs_contract() -> None:
    values = [each.requires_grad_() for each in operands((2, 4, 4, 2, 2, 5, 7))]
    torch.library.opcheck(torch.ops.distillc.axial_scan, (*values, "down,right,up,left"))


@pytest.mark.parametrize(
    ("index", "change", "said"),
    [
        (0, lambda x: x[0], r"u must be \(b, d, h, w\)"),
        (1, lambda x: x[:, :1], r"delta must be \(1, 2, 5, 7\), not \(1, 1, 5, 7\)"),
        (3, lambda x: x[..., 1:], r"B must be \(1, 1, 2, 5, 7\)"),
        (3, lambda x: x[:, :0], "B has 0 groups of 2 states"),
        (3, lambda x: x[:, :, :0], "B has 1 groups of 0 states"),
        (4, lambda x: x.double(), "C must be torch.float32 on cpu, not torch.float64"),
        (7, lambda _: "down,forward", "no direction is called 'forward', they are down, right"),
        (7, lambda _: "down,up,left", "6 channels, 2 heads and 3 directions"),
    ],
)
def test_operands_that_do_not_fit(index: int, change: Any, said: str) -> None:
    values: list[Any] = [*operands((1, 2, 3, 1, 2, 5, 7)), "down,up"]
    values[index] = change(values[index])
    with pytest.raises(UsageError, match=said):
        axial_scan(*values)


def test_gradients_are_checked_too() -> None:
    values = operands((1, 2, 3, 1, 2, 5, 7))
    with pytest.raises(UsageError, match=r"grad must be \(1, 6, 5, 7\), not \(1, 6, 5, 6\)"):
        torch.ops.distillc.axial_scan_backward(values[0][..., 1:], *values, "down,up")


def test_without_a_compiler_it_is_slow_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise LoweringError("cannot be compiled")

    values = operands((1, 2, 4, 1, 1, 5, 7))
    wanted = axial_scan(*values, "down")
    monkeypatch.setattr(native, "library", fail)
    native.has_kernels.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"plain torch.*\n?.*cannot be compiled") as warned:
            slow = [axial_scan(*values, "down") for _ in range(2)]
    finally:
        native.has_kernels.cache_clear()
    assert len(warned) == 1
    for each in slow:
        agree(each, wanted, 2e-5)
