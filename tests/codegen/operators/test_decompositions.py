"""Operators that the importer does not know."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tvm import relax

from distillc.codegen.build.library import tvm_target
from distillc.codegen.lower import lower
from distillc.codegen.operators.prepare import decompose, prepare
from distillc.codegen.schedule.apply_rules import schedule_module
from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_prepared
from tests.codegen.schedule.rules.kernels import Function

HOST = get_target("host")


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("keepdim", [True, False])
def test_extremes_and_their_places(name: str, dim: int, keepdim: bool) -> None:
    def both(x: torch.Tensor) -> torch.Tensor:
        values, places = getattr(torch, name)(x, dim, keepdim)
        return values + getattr(torch, "arg" + name)(x, dim, keepdim) * 2 + places

    x = torch.randn(3, 4, 5).round()  # some are equal: the first counts
    found = check_prepared(both, x)
    assert not {"max", "min", "argmax", "argmin"} & set(found)


@pytest.mark.parametrize(("dim", "keepdim"), [(0, True), (1, False), (-1, True)])
def test_medians(dim: int, keepdim: bool) -> None:
    def middle(x: torch.Tensor) -> torch.Tensor:
        values, places = x.median(dim, keepdim)
        return values + places + x.median()

    assert not {"median"} & set(check_prepared(middle, torch.randn(3, 4, 5)))


def test_place_of_the_largest_of_all() -> None:
    check_prepared(lambda x: x + x.argmax() + x.argmin(), torch.randn(3, 4))


@pytest.mark.parametrize("index", [-1, -3, 0, 2])
def test_entries_counted_from_the_end(index: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    program = torch.export.export(Function(lambda x: x + x[:, index].unsqueeze(1)), (x,))
    chosen = [node for node in decompose(program).graph.nodes if "select" in node.name]
    assert [node.args[2] for node in chosen] == [index % 3]
    assert "select" in check_prepared(lambda x: x + x[:, index].unsqueeze(1), x)


def test_hypotenuse() -> None:
    assert "hypot" not in check_prepared(lambda x: torch.hypot(x, x + 1), torch.randn(3, 4))


@given(st.integers(0, 2), st.booleans(), st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_lookups_along_neighbouring_axes(first: int, two: bool, count: int) -> None:
    x = torch.randn(4, 3, 5, 6)
    rows = torch.arange(count)[:, None] - 2
    columns = torch.arange(2) - 1
    index = (slice(None),) * first + ((rows, columns) if two else (rows,))
    assert "index" not in check_prepared(lambda x: x[index] * 1.0, x)


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


def test_lookups_along_axes_that_are_apart() -> None:
    rows, columns = torch.tensor([0, 2, 1]), torch.tensor([[3], [0]])
    found = check_prepared(lambda x: x[:, rows, :, columns] * 1.0, torch.randn(2, 3, 4, 5))
    assert "index" not in found


def test_largest_pixels_of_channels() -> None:
    def pooled(x: torch.Tensor) -> torch.Tensor:
        values, places = nn.functional.adaptive_max_pool2d(x, 1, return_indices=True)
        return values * 2 + places

    assert "adaptive_max_pool2d" not in check_prepared(pooled, torch.randn(2, 3, 4, 5))


def test_writes_of_one_number_where_a_mask_says_so() -> None:
    def clipped(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[y > 1] = 1
        y[y[:, :, 0] < 0] = -2
        return y

    assert "index_put" not in check_prepared(clipped, torch.randn(4, 5, 6))


def test_writes_where_a_mask_of_pixels_says_so() -> None:
    def marked(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[x[..., 0] > 0] = torch.arange(6.0)
        y[x[..., 1] > 0] = torch.arange(6.0)[None]
        return y

    assert "index_put" not in check_prepared(marked, torch.randn(4, 5, 6))


def test_writes_at_places_are_writes_into_the_flat_tensor() -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        y, rows = x.clone(), x[:, 0, 0].argsort()
        y[rows] = x[:1]
        y[:, rows - 4, rows] = 2.0
        return y.scatter(2, x.argsort(2), x).scatter(1, x[:, :2].argsort(1), 3)

    found = check_prepared(written, torch.randn(4, 4, 20))
    assert found["index_put"] == 3
    assert not {"scatter", "index"} & set(found)


def test_sorts_and_the_largest_along_any_axis() -> None:
    def sorted_(x: torch.Tensor) -> torch.Tensor:
        values, order = x.sort(dim=1, stable=True, descending=True)
        largest, places = x.topk(3, dim=0)
        return values + order + largest.sum() + places.sum() + x.topk(2, largest=False).values.sum()

    assert "topk" not in check_prepared(sorted_, torch.randn(4, 5, 6))


def test_lookups_by_activations_and_by_one_number() -> None:
    def nearest(x: torch.Tensor) -> torch.Tensor:
        return x[x.argmax(0)] + x[torch.tensor(-1)]

    assert "index" not in check_prepared(nearest, torch.randn(5, 4, 3).sort(0)[0][:, :, :1])


def test_unfold_of_overlapping_windows() -> None:
    def windows(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.unfold(x, (6, 4), stride=(3, 2), padding=1) * 2

    assert "index" not in check_prepared(windows, torch.randn(1, 3, 12, 10))


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_few_writes_into_each_row(dim: int) -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        index = x.narrow(dim, 0, 2).abs().long() % 3
        one_hot = torch.zeros_like(x).scatter_(dim, index.narrow(dim, 0, 1), 1)
        return x.scatter(dim, index, x.narrow(dim, 1, 2) * 2) + one_hot

    assert "scatter" not in check_prepared(written, 3 * torch.randn(3, 4, 5))


def test_patches_that_do_not_overlap() -> None:
    def folded(x: torch.Tensor) -> torch.Tensor:
        patches = torch.nn.functional.unfold(x, (2, 3), stride=(2, 3))
        return torch.nn.functional.fold(patches * 2, (6, 9), (2, 3), stride=(2, 3))

    found = check_prepared(folded, torch.randn(1, 4, 6, 9))
    assert not {"index_put", "col2im", "index"} & set(found)


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(2, 6),
        nn.GroupNorm(3, 6, affine=False),
        nn.InstanceNorm2d(6, affine=True),
        nn.InstanceNorm2d(6),
    ],
)
def test_norms_of_groups_and_of_every_channel(norm: nn.Module) -> None:
    found = check_prepared(norm, 3 + torch.randn(2, 6, 4, 5))
    assert not {"native_group_norm", "_native_batch_norm_legit"} & set(found)


@given(
    st.lists(st.integers(1, 4), max_size=2),
    st.integers(1, 70),
    st.integers(0, 2),
    st.sampled_from([torch.float32, torch.int64, torch.bool]),
)
@settings(max_examples=20, deadline=None)
def test_running_sums(others: list[int], count: int, axis: int, dtype: torch.dtype) -> None:
    axis = min(axis, len(others))
    shape = [*others[:axis], count, *others[axis:]]
    kept = torch.randint(0, 2, shape).to(dtype)

    def summed(x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(axis) + (kept * (x > 0)).to(dtype).cumsum(axis)

    assert "cumsum" not in check_prepared(summed, torch.randn(shape))


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (3, 33), (70,)])
@pytest.mark.parametrize("axis", [0, -1])
def test_running_products(shape: tuple[int, ...], axis: int) -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        return x.sigmoid().cumprod(axis) + (x > -1).cumprod(axis)

    assert "cumprod" not in check_prepared(product, torch.randn(shape))


def test_one_hot() -> None:
    def classes(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(x.argmax(-1), x.shape[-1] + 2).float()

    left = check_prepared(classes, torch.randn(1, 3, 4, 5))
    assert not {name for name in left if "one_hot" in name or "assert" in name}


def test_arithmetic_of_whole_numbers_with_numbers_of_python() -> None:
    """The importer gives a number int32, and TVM then refuses it beside int64."""

    def whole(x: torch.Tensor) -> torch.Tensor:
        n = (x * 8).long()
        parts = (n // 3, n % 5, torch.fmod(n, 4), torch.div(n, 3, rounding_mode="trunc"))
        return torch.stack(parts).to(x.dtype)

    x = torch.linspace(-3, 3, 24).reshape(1, 1, 4, 6)
    check_prepared(whole, x)
    mod = schedule_module(lower(torch.export.export(Function(whole), (x,)), HOST), HOST)
    vm = relax.VirtualMachine(tvm.compile(mod, tvm_target(HOST)), tvm.cpu())
    y = vm["main"](tvm.runtime.tensor(x.numpy())).numpy()
    torch.testing.assert_close(torch.from_numpy(y), whole(x), rtol=0, atol=0)


@given(st.integers(1, 9), st.integers(-3, 9), st.integers(-3, 12), st.integers(1, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_some_rows_are_written(rows: int, start: int, end: int, step: int, last: bool) -> None:
    def written(x: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        if last:
            y[..., start:end:step] = x[..., start:end:step] + 1
        else:
            y[:, start:end:step] = x[:, start:end:step] + 1
        return y

    shape = (2, 3, rows) if last else (2, rows, 3)
    found = check_prepared(written, torch.rand(shape))
    assert "slice_scatter" not in found


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dim", [1, (0, -1), None])
@pytest.mark.parametrize("correction", [0, 1])
def test_variance_with_its_mean(dim: Any, keepdim: bool, correction: int) -> None:
    def moments(x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, dim, correction=correction, keepdim=keepdim)
        return variance + 2 * mean

    assert "var_mean" not in check_prepared(moments, torch.rand(2, 3, 4))


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.integers(-3, 2))
@settings(max_examples=20, deadline=None)
def test_windows_along_an_axis(more: int, size: int, step: int, axis: int) -> None:
    shape = [2, 3, 4]
    shape[axis] = size + more - 1
    found = check_prepared(lambda x: x.exp().unfold(axis, size, step) + 1, torch.rand(shape))
    assert "unfold" not in found
