"""Reads at computed places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillc.codegen.operators.prepare import decompose
from distillc.targets.base import get_target
from tests.codegen.operators.programs import check_compiled, check_prepared
from tests.codegen.schedule.rules.kernels import Function

HOST = get_target("host")


@pytest.mark.parametrize("index", [-1, -3, 0, 2])
def test_entries_counted_from_the_end(index: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    program = torch.export.export(Function(lambda x: x + x[:, index].unsqueeze(1)), (x,))
    chosen = [node for node in decompose(program).graph.nodes if "select" in node.name]
    assert [node.args[2] for node in chosen] == [index % 3]
    assert "select" in check_prepared(lambda x: x + x[:, index].unsqueeze(1), x)


@given(st.integers(0, 2), st.booleans(), st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_lookups_along_neighbouring_axes(first: int, two: bool, count: int) -> None:
    x = torch.randn(4, 3, 5, 6)
    rows = torch.arange(count)[:, None] - 2
    columns = torch.arange(2) - 1
    index = (slice(None),) * first + ((rows, columns) if two else (rows,))
    assert "index" not in check_prepared(lambda x: x[index] * 1.0, x)


def test_lookups_along_axes_that_are_apart() -> None:
    rows, columns = torch.tensor([0, 2, 1]), torch.tensor([[3], [0]])
    found = check_prepared(lambda x: x[:, rows, :, columns] * 1.0, torch.randn(2, 3, 4, 5))
    assert "index" not in found


def test_lookups_by_activations_and_by_one_number() -> None:
    def nearest(x: torch.Tensor) -> torch.Tensor:
        return x[x.argmax(0)] + x[torch.tensor(-1)]

    assert "index" not in check_prepared(nearest, torch.randn(5, 4, 3).sort(0)[0][:, :, :1])


def test_unfold_of_overlapping_windows() -> None:
    def windows(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.unfold(x, (6, 4), stride=(3, 2), padding=1) * 2

    assert "index" not in check_prepared(windows, torch.randn(1, 3, 12, 10))


def test_patches_that_do_not_overlap() -> None:
    def folded(x: torch.Tensor) -> torch.Tensor:
        patches = torch.nn.functional.unfold(x, (2, 3), stride=(2, 3))
        return torch.nn.functional.fold(patches * 2, (6, 9), (2, 3), stride=(2, 3))

    found = check_prepared(folded, torch.randn(1, 4, 6, 9))
    assert not {"index_put", "col2im", "index"} & set(found)


def test_one_hot() -> None:
    def classes(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(x.argmax(-1), x.shape[-1] + 2).float()

    left = check_prepared(classes, torch.randn(1, 3, 4, 5))
    assert not {name for name in left if "one_hot" in name or "assert" in name}


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4), st.integers(-3, 2))
@settings(max_examples=20, deadline=None)
def test_windows_along_an_axis(more: int, size: int, step: int, axis: int) -> None:
    shape = [2, 3, 4]
    shape[axis] = size + more - 1
    found = check_prepared(lambda x: x.exp().unfold(axis, size, step) + 1, torch.rand(shape))
    assert "unfold" not in found


def test_places_of_the_memory() -> None:
    x = torch.randn(1, 3, 8, 9)
    found = check_prepared(lambda x: x.exp().as_strided((2, 3, 4), (72, 9, 2), 5), x)
    assert "as_strided" not in found
    found = check_prepared(lambda x: x.exp().as_strided((1, 3, 72), (216, 72, 1)), x)
    assert not {"as_strided", "index_select"} & set(found)


def test_views_of_what_a_form_gave_other_strides() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        y = x.permute(0, 3, 1, 2).topk(2, -2).values.clone()
        y[y > 0.4] = 0.0
        return y.flatten()

    check_compiled(masked, torch.rand(1, 4, 5, 6))


def test_parts_without_elements() -> None:
    def partial(x: torch.Tensor) -> torch.Tensor:
        changed, rest = x.split([3, x.shape[1] - 3], 1)
        return torch.cat([changed.exp(), rest], 1)

    check_compiled(partial, torch.rand(1, 3, 4, 5))
    check_compiled(partial, torch.rand(1, 4, 4, 5))


def test_a_copy_with_other_strides() -> None:
    strides = torch.ops.prims.copy_strided
    found = check_prepared(lambda x: strides(x, [24, 1, 12, 3]).mT * 2, torch.rand(1, 3, 2, 4))
    assert "copy_strided" not in found


def test_joins_tensors_of_several_types() -> None:
    def joined(x: torch.Tensor) -> torch.Tensor:
        whole = x.long()
        wide = torch.cat([whole, whole[:0].double()])  # float64, though only whole numbers are left
        return torch.cat([whole, x, x > 0]) + torch.cat([whole / 2, wide / 3, whole // 2])

    check_compiled(joined, torch.randn(4, 5) * 3)
